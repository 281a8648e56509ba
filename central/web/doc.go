// Package web is the page that central serves for people: what the command line shows and does,
// in a browser. It is HTML from templates and one small script, which keeps what is shown up to
// date; without the script it can be read, and used, all the same.
//
// The page has no rights of its own. Each of its requests asks the API of central, in the same
// process, with the token that the person logged in with: who may see and do what is decided
// there, and nowhere else. A session is a cookie for that token, which stays in central's memory.
//
// All of it lies below /ui/, and the API takes no cookies: a page of another site cannot use
// the one to get at the other.
package web

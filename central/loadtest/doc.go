// Package loadtest puts load on central and measures it. A Fleet is thousands of agents in one
// process, each with a client of its own, that say hello, poll and report as package agent does;
// its BMCs do at once what they are told. Measure runs both programs and gives a Row for each
// figure, beside what SQLite alone takes for the same work in the same run.
package loadtest

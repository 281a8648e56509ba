// Package api holds what central, the agents and the command line say to each
// other: the bodies of requests and answers, the errors, and the client. It knows
// nothing of how central stores things, so agent and command line link it freely.
//
// All bodies are JSON. Errors are problem details (RFC 9457) with a Code that
// programs may act on. Every request that changes something may be sent again
// after a lost answer: operations carry ids chosen by their asker, statuses and
// reports are states and not differences.
//
//	people                                 agents
//	GET    /v1/nodes?select=EXPR           POST /v1/agents/{name}/hello   at start and after each reconnect
//	POST   /v1/nodes                       POST /v1/agents/{name}/poll    long poll: what changed since
//	POST   /v1/nodes/remove                POST /v1/agents/{name}/report  outcomes and readings
//	POST   /v1/nodes/status
//	GET    /v1/nodes/export
//	POST   /v1/ops
//	POST   /v1/ops/query                   long poll
//	POST   /v1/ops/{id}/cancel
//	POST   /v1/reads                       waits for fresh readings
//	POST   /v1/nodes/hold                  sets or releases holds
//	POST   /v1/nodes/retry
//	GET    /v1/nodes/{name}/explain        why a node is as it is
//	GET    /v1/racks                       monitors of racks: schedule, pause, bounds of the brake
//	POST   /v1/racks/{name}
//	POST   /v1/racks/{name}/pause          pauses or resumes
//	GET    /v1/brakes                      those that hold
//	POST   /v1/brakes/release
//	GET    /v1/domains                     power domains and their limits
//	POST   /v1/domains
//	GET    /v1/schedules
//	POST   /v1/schedules                   adds or replaces one
//	POST   /v1/schedules/remove
//	GET    /v1/schedules/next?name=N&count=K
//	GET    /v1/audit?select=EXPR&limit=N   the newest entries
//	GET    /v1/audit?after=ID&wait=D       long poll: those behind an entry
//	GET    /v1/agents  /v1/members  /v1/info
package api

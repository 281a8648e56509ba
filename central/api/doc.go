// Package api holds what central, the agents and the command line exchange: the bodies
// of requests and answers, the errors, and the client. It does not know how central
// stores things, so agent and command line may import it.
//
// All bodies are JSON. Errors are problem details (RFC 9457) with a Code that
// programs may act on. Every request that changes something may be sent again
// after a lost answer: operations carry ids chosen by their asker, statuses and
// reports are states and not differences.
//
// Central answers 429 with the Code too-many-requests and the header Retry-After (seconds)
// to a principal that asks too often, or has too many requests, requests that wait for
// news, or bytes of bodies at once. Nothing was done then. Client waits and sends such a
// request again.
//
// # Routes of central, for people
//
//	GET    /v1/nodes                       ?select=EXPR
//	GET    /v1/nodes/alike                 ?select=EXPR: those together that are alike
//	POST   /v1/nodes                       adds or updates
//	POST   /v1/nodes/remove
//	POST   /v1/nodes/status
//	POST   /v1/nodes/hold                  sets or releases holds
//	POST   /v1/nodes/protect               protects nodes from losing power, or no longer
//	POST   /v1/nodes/retry                 nodes that are left alone are tried again
//	GET    /v1/nodes/{name}/explain        why a node is as it is
//	GET    /v1/nodes/export
//	POST   /v1/ops
//	POST   /v1/ops/query                   long poll
//	POST   /v1/ops/{id}/cancel
//	POST   /v1/plans                       what a change would do, node by node
//	GET    /v1/plans/{id}
//	POST   /v1/plans/{id}/apply            makes the change, if it does what was shown
//	GET    /v1/approvals                   plans that await an approval
//	POST   /v1/approvals/{id}              approves one, which makes the change, or denies it
//	GET    /v1/policy                      when a second person has to approve
//	POST   /v1/policy
//	POST   /v1/reads                       waits for fresh readings
//	POST   /v1/power                       waits for what nodes take, and sums it
//	POST   /v1/tests                       logs in to BMCs once, and waits for what they answer
//	GET    /v1/racks                       schedule, pause and brake bounds of each monitor
//	                                       ?select=EXPR: of the racks that have the nodes
//	POST   /v1/racks/{name}
//	POST   /v1/racks/{name}/pause          pauses or resumes
//	POST   /v1/pause                       pauses or resumes all racks, those to come too
//	GET    /v1/site                        what the monitors wait for since a restore
//	POST   /v1/site/confirm                has them go on
//	GET    /v1/brakes                      those that hold
//	POST   /v1/brakes/release
//	GET    /v1/domains                     power domains and their limits
//	POST   /v1/domains
//	GET    /v1/schedules
//	POST   /v1/schedules                   adds or replaces one
//	POST   /v1/schedules/remove
//	GET    /v1/schedules/next              ?name=N&count=K
//	GET    /v1/audit                       ?select=EXPR&limit=N: the newest entries
//	                                       ?who=W&what=W&since=T&until=T: only such
//	                                       ?after=ID&wait=D: long poll, those behind an entry
//	GET    /v1/watch                       ?nodes=EXPR&kinds=audit,node&after=ID: a stream of events
//	GET    /v1/audit/verify                ?head=HASH: checks the hashes of all entries
//	GET    /v1/attention                   what wants a person, the most pressing first
//	GET    /v1/agents
//	POST   /v1/agents/{name}/ack           acknowledges alarms
//	POST   /v1/agents/{name}/forget
//	POST   /v1/agents/{name}/drain
//	GET    /v1/members                     the gossip cluster
//	GET    /v1/peers                       the fleet's power as gossip knows it
//	POST   /v1/gossip/ping
//	GET    /v1/gossip/who                  ?node=N: who reaches its BMC
//	GET    /v1/gossip/keys
//	POST   /v1/gossip/keys
//	GET    /v1/info
//	GET    /v1/whoami                      who asks, as central knows it
//	GET    /metrics                        numbers for Prometheus
//	GET    /debug/pprof/{name}             a profile, or a trace, of the process
//	GET    /v1/users
//	POST   /v1/users                       adds or changes one
//	POST   /v1/users/{name}/rotate         revokes tokens and certificates, makes a new token
//	POST   /v1/users/{name}/certificate    a client certificate; of others for admins only
//	POST   /v1/users/{name}/remove
//	GET    /v1/credentials                 those that nodes may name, without passwords
//	POST   /v1/credentials/{name}          adds or replaces them
//	POST   /v1/credentials/{name}/rotate   others take their place where BMCs take them
//	POST   /v1/credentials/{name}/remove
//	POST   /v1/agents/{name}/token         a token that enrols an agent once
//	POST   /v1/agents/{name}/revoke        its certificate holds no longer
//	POST   /v1/seal/rotate                 another key seals the passwords; on the socket only
//
// # Routes of central, for those who are not known yet
//
//	GET    /v1/openapi.json                these routes, and their bodies, as OpenAPI
//	GET    /docs                           the same as a page
//	GET    /v1/ca                          the CA of the site
//	POST   /v1/join                        enrols an agent that has a token
//
// # Routes of central, for agents
//
// On the socket only root and central's own user may use them, over TLS the agent of that
// name: the answers hold passwords and keys.
//
//	POST   /v1/agents/{name}/enrol         what an agent needs to gossip
//	POST   /v1/agents/{name}/hello         at the start and after each reconnect
//	POST   /v1/agents/{name}/poll          long poll: what changed for the agent
//	POST   /v1/agents/{name}/report        ends, phases and readings
//	POST   /v1/agents/{name}/goodbye
//	POST   /v1/agents/{name}/renew         the next certificate
//
// # Routes of an agent's socket
//
// The same bodies, for the agent's own nodes, and a few routes of its own.
//
//	GET    /v1/nodes
//	POST   /v1/nodes/hold
//	POST   /v1/nodes/retry
//	GET    /v1/nodes/{name}/explain
//	POST   /v1/ops
//	POST   /v1/ops/query
//	POST   /v1/ops/{id}/cancel
//	POST   /v1/reads
//	GET    /v1/racks
//	GET    /v1/brakes
//	POST   /v1/brakes/release
//	GET    /v1/domains
//	GET    /v1/members
//	GET    /v1/peers
//	POST   /v1/gossip/ping
//	GET    /v1/gossip/who
//	GET    /v1/gossip/keys
//	POST   /v1/gossip/keys
//	GET    /v1/info
//	GET    /v1/alarms                      those of this agent
//	POST   /v1/alarms/ack
//	GET    /metrics                        numbers for Prometheus
//	GET    /debug/pprof/{name}             a profile, or a trace, of the process
//	GET    /v1/trust                       which central the agent follows
//	POST   /v1/trust                       follows another one
package api

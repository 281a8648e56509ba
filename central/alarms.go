package central

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rackpower/central/api"
	"rackpower/central/store"
)

// What an audit entry says happened to an alarm.
const (
	auditAlarm     = "alarm"
	auditAlarmOver = "alarm-over"
	auditAlarmAck  = "alarm-ack"
)

// ackRemedy is the command that acknowledges an alarm of an agent.
func ackRemedy(agent, kind string) string {
	return fmt.Sprintf("rackpower agents ack %s --kind %s --reason TEXT", agent, kind)
}

// raise has central show an alarm about an agent, with an entry in the audit log and
// in the log. One that is raised already with the same message is left as it is. Where the
// alarm needs an acknowledgement and no remedy is named, the remedy is to acknowledge it.
func (u *unitOfWork) raise(agent string, a api.Alarm) error {
	a.Since = u.now.UTC()
	if a.NeedsAck && a.Remedy == "" {
		a.Remedy = ackRemedy(agent, a.Kind)
	}
	news, err := u.tx.RaiseAlarm(agent, a)
	if err != nil || !news {
		return err
	}
	u.c.log.Error("alarm", "agent", agent, "kind", a.Kind, "message", a.Message, "remedy", a.Remedy)
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: "agent " + agent, What: auditAlarm, Why: a.Kind, Detail: a.Message})
}

// clear ends an alarm about an agent whose cause is gone, if there is one.
func (u *unitOfWork) clear(agent, kind string) error {
	was, err := u.tx.ClearAlarm(agent, kind)
	if err != nil || !was {
		return err
	}
	return u.tx.AddAudit(api.AuditEntry{At: u.now, Who: "agent " + agent, What: auditAlarmOver, Why: kind})
}

// alarmsOf are all alarms of an agent: those that central raised, then its own.
func alarmsOf(raised []api.Alarm, s *api.RackState) []api.Alarm {
	all := slices.Clone(raised)
	if s != nil {
		all = append(all, s.Alarms...)
	}
	return all
}

// ackAlarm acknowledges alarms of an agent: those that central raised are over, and the
// agent is told of its own ones, which it then ends.
func (c *Central) ackAlarm(r *http.Request, in api.AckAlarm) ([]api.Alarm, error) {
	name, who, now := r.PathValue("name"), askedBy(r, in.AskedBy), c.cfg.Now()
	var acked []api.Alarm
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		acked = []api.Alarm{}
		a, found, err := u.tx.Agent(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such agent: %s", name)
		}
		if err != nil {
			return err
		}
		if acked, err = u.ack(a, in); err != nil {
			return err
		}
		if len(acked) == 0 {
			return api.Problemf(api.CodeNotFound, "agent %s has no %s", name, strings.TrimSpace("alarm "+in.Kind))
		}
		return nil
	})
	return acked, err
}

func (u *unitOfWork) ack(a store.Agent, in api.AckAlarm) (acked []api.Alarm, err error) {
	raised, err := u.tx.Alarms(a.Name)
	if err != nil {
		return nil, err
	}
	for _, al := range raised {
		if in.Kind != "" && al.Kind != in.Kind {
			continue
		}
		if _, err := u.tx.ClearAlarm(a.Name, al.Kind); err != nil {
			return nil, err
		}
		acked = append(acked, al)
	}
	state, err := a.State()
	if err != nil {
		return nil, err
	}
	set, err := a.Settings()
	if err != nil {
		return nil, err
	}
	told := false
	for _, al := range alarmsOf(nil, state) {
		named := al.Kind == in.Kind
		if !named && (in.Kind != "" || al.Kind == api.AlarmAssignmentShrank) { // that one lets nodes go
			continue
		}
		set.Acks = slices.DeleteFunc(set.Acks, func(k api.AlarmAck) bool { return k.Kind == al.Kind })
		set.Acks = append(set.Acks, api.AlarmAck{Kind: al.Kind, Since: al.Since, By: u.who})
		acked, told = append(acked, al), true
	}
	if told {
		if err := u.saveSettings(a.Name, set); err != nil {
			return nil, err
		}
	}
	for _, al := range acked {
		if err := u.audit(auditAlarmAck, "", in.Reason, fmt.Sprintf("agent %s: %s: %s", a.Name, al.Kind, al.Message)); err != nil {
			return nil, err
		}
	}
	return acked, nil
}

// standingAcks are the acknowledgements that the agent is still to be told: it shows
// those alarms.
func standingAcks(acks []api.AlarmAck, alarms []api.Alarm) []api.AlarmAck {
	var still []api.AlarmAck
	for _, k := range acks {
		if slices.ContainsFunc(alarms, func(a api.Alarm) bool { return a.Kind == k.Kind && a.Since.Equal(k.Since) }) {
			still = append(still, k)
		}
	}
	return still
}

// alarmEvents are the audit entries about the alarms that an agent tells of.
func alarmEvents(old, next []api.Alarm) (news []api.AuditEntry) {
	has := func(list []api.Alarm, a api.Alarm) bool {
		return slices.ContainsFunc(list, func(b api.Alarm) bool { return b.Kind == a.Kind && b.Message == a.Message })
	}
	for _, a := range old {
		if !has(next, a) {
			news = append(news, api.AuditEntry{What: auditAlarmOver, Why: a.Kind, Detail: a.Message})
		}
	}
	for _, a := range next {
		if !has(old, a) {
			news = append(news, api.AuditEntry{What: auditAlarm, HappenedAt: a.Since, Why: a.Kind, Detail: a.Message})
		}
	}
	return news
}

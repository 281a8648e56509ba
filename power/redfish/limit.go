package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"rackpower/power"
)

const (
	opConsumption = "read consumption"
	opLimit       = "set limit"
)

// number is a number, nil where another type is given or one that cannot be.
type number struct{ value *float64 }

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	var f float64
	if json.Unmarshal(data, &f) == nil && f >= 0 && f < math.MaxInt32 && string(data) != "null" {
		n.value = &f
	}
	return nil
}

// watts is the number rounded.
func (n number) watts() *int {
	if n.value == nil {
		return nil
	}
	watts := int(math.Round(*n.value))
	return &watts
}

type chassis struct {
	Power       link `json:"Power"`
	Environment link `json:"EnvironmentMetrics"`
}

// powerResource is Power (DSP0268), whose place PowerSubsystem and EnvironmentMetrics have
// taken since.
type powerResource struct {
	ETag     text          `json:"@odata.etag"`
	Controls powerControls `json:"PowerControl"`
}

type powerControl struct {
	Consumed number `json:"PowerConsumedWatts"`
	Metrics  object[struct {
		Min     number `json:"MinConsumedWatts"`
		Max     number `json:"MaxConsumedWatts"`
		Average number `json:"AverageConsumedWatts"`
	}] `json:"PowerMetrics"`
	Limit   *powerLimit `json:"PowerLimit"` // nil: it has none
	Related links       `json:"RelatedItem"`
}

type powerLimit struct {
	Watts     number `json:"LimitInWatts"`
	Exception text   `json:"LimitException"`
}

type powerControls []powerControl

// UnmarshalJSON implements json.Unmarshaler.
func (p *powerControls) UnmarshalJSON(data []byte) error {
	*p = list[powerControl](data)
	return nil
}

// environmentMetrics is EnvironmentMetrics of a Chassis (DSP0268).
type environmentMetrics struct {
	ETag  text `json:"@odata.etag"`
	Power object[struct {
		Reading number `json:"Reading"`
	}] `json:"PowerWatts"`
	Limit *environmentLimit `json:"PowerLimitWatts"`
}

type environmentLimit struct {
	SetPoint number `json:"SetPoint"`
	Mode     text   `json:"ControlMode"`
}

// limitPlace is where the limit is, and how it is changed.
type limitPlace struct {
	path link
	tag  text
	// control is which of PowerControl it is; -1: it is the one of EnvironmentMetrics.
	control int
}

// body is what has the limit be so many watts.
func (p limitPlace) body(watts int) map[string]any {
	if p.control < 0 {
		if watts == 0 {
			return map[string]any{"PowerLimitWatts": map[string]any{"ControlMode": "Disabled"}}
		}
		return map[string]any{"PowerLimitWatts": map[string]any{"SetPoint": watts, "ControlMode": "Automatic"}}
	}
	controls := make([]map[string]any, p.control+1) // those before it stay as they are
	for i := range controls {
		controls[i] = map[string]any{}
	}
	limit := map[string]any{"LimitInWatts": watts}
	if watts == 0 {
		limit["LimitInWatts"] = nil
	}
	controls[p.control]["PowerLimit"] = limit
	return map[string]any{"PowerControl": controls}
}

// Consumption implements power.Meter: PowerControl or EnvironmentMetrics of the System's
// chassis, whichever the BMC has.
func (s *session) Consumption(ctx context.Context) (power.Consumption, error) {
	if err := s.ready(ctx, opConsumption); err != nil {
		return power.Consumption{}, err
	}
	c, _, err := s.consumption(ctx, opConsumption)
	if err != nil {
		err.Sent = false
		return power.Consumption{}, s.check(err)
	}
	return c, nil
}

// consumption looks through the chassis of the System, until it has both what is taken and a
// limit, or has seen all.
func (s *session) consumption(ctx context.Context, op string) (c power.Consumption, place limitPlace, _ *power.Error) {
	if err := s.known(ctx, op); err != nil {
		return c, place, err
	}
	looked := []string{}
	for _, at := range s.system.Links.value.Chassis {
		var ch chassis
		if err := s.readPart(ctx, op, at, &ch); err != nil {
			return c, place, err
		}
		looked = append(looked, string(at))
		if ch.Power != "" {
			if err := s.powerOf(ctx, op, at, ch.Power, &c, &place); err != nil {
				return c, place, err
			}
		}
		if ch.Environment != "" && (c.Watts == nil || c.Limit == nil) {
			if err := s.environmentOf(ctx, op, ch.Environment, &c, &place); err != nil {
				return c, place, err
			}
		}
		if c.Watts != nil && c.Limit != nil {
			return c, place, nil
		}
	}
	if c.Watts == nil && c.Limit == nil {
		where := "its System names no chassis"
		if len(looked) > 0 {
			where = "looked for at " + clean(strings.Join(looked, ", "))
		}
		return c, place, &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf(
			"the BMC has neither PowerControl nor EnvironmentMetrics with PowerWatts or PowerLimitWatts; %s", where)}
	}
	return c, place, nil
}

// readPart reads a resource that a BMC may name and not have.
func (s *session) readPart(ctx context.Context, op string, path link, into any) *power.Error {
	a, err := s.read(ctx, op, path, into)
	if err != nil && a.status == http.StatusNotFound {
		return nil
	}
	return err
}

func (s *session) powerOf(ctx context.Context, op string, chassis, path link, c *power.Consumption, place *limitPlace) *power.Error {
	var p powerResource
	a, err := s.read(ctx, op, path, &p)
	if err != nil && a.status == http.StatusNotFound || err == nil && len(p.Controls) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	// Others are of parts of the machine: processors, memory.
	i := max(0, slices.IndexFunc(p.Controls, func(pc powerControl) bool {
		return slices.Contains(pc.Related, chassis) || slices.Contains(pc.Related, s.at)
	}))
	pc := p.Controls[i]
	if c.Watts == nil {
		m := pc.Metrics.value
		c.Watts, c.Min, c.Max, c.Average = pc.Consumed.watts(), m.Min.watts(), m.Max.watts(), m.Average.watts()
	}
	if c.Limit == nil && pc.Limit != nil {
		c.Limit = limitOf(pc.Limit.Watts, power.LimitException(clean(string(pc.Limit.Exception))))
		*place = limitPlace{path, tagOf(a, p.ETag), i}
	}
	return nil
}

func (s *session) environmentOf(ctx context.Context, op string, path link, c *power.Consumption, place *limitPlace) *power.Error {
	var e environmentMetrics
	a, err := s.read(ctx, op, path, &e)
	if err != nil && a.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if c.Watts == nil {
		c.Watts = e.Power.value.Reading.watts()
	}
	if c.Limit == nil && e.Limit != nil {
		c.Limit = limitOf(e.Limit.SetPoint, "")
		c.Limit.Active = c.Limit.Active && e.Limit.Mode != "Disabled"
		*place = limitPlace{path, tagOf(a, e.ETag), -1}
	}
	return nil
}

func limitOf(n number, exception power.LimitException) *power.Limit {
	limit := &power.Limit{Exception: exception}
	if watts := n.watts(); watts != nil {
		limit.Watts, limit.Active = *watts, *watts > 0
	}
	return limit
}

// tagOf is the tag of what was read: that of the answer, else that which stands in it.
func tagOf(a answer, inside text) text {
	if tag := a.header.Get("ETag"); tag != "" {
		return text(tag)
	}
	return inside
}

// SetLimit implements power.Meter. LimitException stays as it is.
func (s *session) SetLimit(ctx context.Context, watts int) error {
	if err := s.ready(ctx, opLimit); err != nil {
		return err
	}
	c, place, err := s.consumption(ctx, opLimit)
	if err == nil && c.Limit == nil {
		err = &power.Error{Kind: power.KindUnsupported, Op: opLimit, Err: errors.New(
			"the BMC reads the power and limits it not: there is neither PowerLimit nor PowerLimitWatts")}
	}
	if err != nil {
		err.Sent = false
		return s.check(err)
	}
	if err := s.patch(ctx, opLimit, place.path, place.tag, place.body(watts)); err != nil {
		var said *statusError
		if errors.As(err.Err, &said) && err.Kind != power.KindBusy {
			err.Sent = true // it has answered, and will not say otherwise next time
		}
		if errors.As(err.Err, &said) && said.has("PropertyValueNotInList", "PropertyValueOutOfRange", "PropertyValueTypeError",
			"PropertyValueFormatError", "PropertyValueIncorrect", "PropertyValueError") {
			err.Kind = power.KindRefused // it has a limit, and does not take this one
		}
		return s.check(err)
	}
	return nil
}

var _ power.Meter = (*session)(nil)

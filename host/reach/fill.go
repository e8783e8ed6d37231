package reach

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// place is a placeholder's value: a host, and the ports that count; nil for schemes without ports.
type place struct {
	host  Host
	ports Ports
}

func (p place) String() string {
	text := p.host.String()
	if p.ports == nil {
		return text
	}
	if p.host.Addr.Is6() {
		text = "[" + text + "]"
	}
	return text + ":" + p.ports.String()
}

// maxPlaces bounds the members of a list in the configuration that stands for hosts.
const maxPlaces = 64

// fill returns what the placeholder of a permission stands for in a call. Its errors do not show a configured value, which
// may be a secret.
func (p Permission) fill(call Call) ([]place, error) {
	values := []string{call.Target}
	if p.ConfigField != "" {
		var err error
		if values, err = configValues(call.Config, p.ConfigField); err != nil {
			return nil, err
		}
	} else if call.Target == "" {
		return nil, errors.New("there is no target")
	}
	places := make([]place, 0, len(values))
	for _, value := range values {
		filled, err := p.fillOne(value)
		switch {
		case err == nil:
		case p.Target:
			return nil, err
		case strings.Contains(value, "@"):
			return nil, errors.New("a user name before @ is not allowed")
		default:
			return nil, errors.New("its value is no address for " + p.Scheme)
		}
		places = append(places, filled)
	}
	return places, nil
}

// configValues reads a field that is a string or a list of strings.
func configValues(config json.RawMessage, field string) ([]string, error) {
	var fields map[string]json.RawMessage
	if len(config) > 0 {
		if err := json.Unmarshal(config, &fields); err != nil {
			return nil, errors.New("the configuration is no JSON object")
		}
	}
	var (
		one  string
		many []string
		raw  = fields[field]
	)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, errors.New("it is not set")
	}
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	if json.Unmarshal(raw, &many) != nil {
		return nil, errors.New("it is neither a string nor a list of strings")
	}
	if len(many) > maxPlaces {
		return nil, fmt.Errorf("it has more than %d members", maxPlaces)
	}
	return many, nil
}

// fillOne reads a value as host, host:port or URL. For http and https a URL must be of that very scheme.
func (p Permission) fillOne(value string) (place, error) {
	s, err := schemeOf(p.Scheme)
	if err != nil {
		return place{}, err
	}
	web := s.name == "http" || s.name == "https"
	value = strings.TrimSpace(value)
	text := value
	if web && !strings.Contains(text, "://") {
		text = s.name + "://" + text
	}
	var at location
	if strings.Contains(text, "://") {
		if at, err = parseURL(text); err != nil {
			return place{}, err
		}
		if web && at.scheme != s.name {
			return place{}, fmt.Errorf("its URL is %s", at.scheme)
		}
		if other, err := schemeOf(at.scheme); err == nil && at.port == 0 {
			at.port = other.port
		}
	} else if at.host, at.port, err = splitAddress(text); err != nil {
		return place{}, err
	}
	filled := place{host: at.host}
	switch {
	case !s.ports:
	case p.Ports != nil:
		filled.ports = p.Ports
	case at.port != 0:
		filled.ports = onePort(at.port)
	case s.port != 0:
		filled.ports = onePort(s.port)
	default:
		return place{}, errors.New("it has no port")
	}
	return filled, nil
}

// CheckTarget says what is wrong with a target of which none of the permissions that stand for it can be filled: no call could
// reach anything then. It is nil when one can, or none stands for the target.
func CheckTarget(permissions []Permission, target string) error {
	var first error
	for _, p := range permissions {
		if !p.Target {
			continue
		}
		if _, err := p.fill(Call{Target: target}); err == nil {
			return nil
		} else if first == nil {
			first = err
		}
	}
	return first
}

package broker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// What a runner asks for.
const (
	opDial    = "dial"
	opResolve = "resolve"
	opEcho    = "echo"
	opCancel  = "cancel" // the request of that id; nothing is answered
	opTell    = "tell"   // a note for the host; nothing is answered
)

// request is a message from the runner.
type request struct {
	Op     string          `json:"op"`
	ID     uint64          `json:"id,omitempty"`     // each greater than all before; of cancel, the one to end
	Call   uint64          `json:"call,omitempty"`   // the call of the plugin that it is for
	Access string          `json:"access,omitempty"` // as reach.Access writes it
	Type   string          `json:"type,omitempty"`   // of a DNS question
	Server string          `json:"server,omitempty"` // that is asked the DNS question; empty: the system's
	Note   json.RawMessage `json:"note,omitempty"`
}

// readRequest reads a message from the runner. What Client never sends is an error that ends the connection; what a plugin
// may have chosen (access, type, server) is looked at later.
func readRequest(body []byte) (request, error) {
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return request{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	var fits bool
	switch r.Op {
	case opDial, opResolve, opEcho:
		fits = r.ID != 0 && r.Note == nil
	case opCancel:
		fits = r.ID != 0 && r.Note == nil && r.Access == ""
	case opTell:
		fits = r.ID == 0 && len(r.Note) > 0 && r.Access == ""
	}
	if !fits {
		return request{}, fmt.Errorf("%w: its fields do not belong together", ErrProtocol)
	}
	return r, nil
}

// reply is a message to the runner: what came of the request of that id. The socket of a dial comes with it as a descriptor.
type reply struct {
	ID      uint64         `json:"id"`
	Error   *Error         `json:"error,omitempty"` // nil: it succeeded
	Addr    netip.AddrPort `json:"addr,omitzero"`
	DNS     time.Duration  `json:"dns_ns,omitempty"`
	Connect time.Duration  `json:"connect_ns,omitempty"`
	Answer  *Answer        `json:"answer,omitempty"`
	Echo    *Echo          `json:"echo,omitempty"`
}

// readReply reads a message from the server.
func readReply(body []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		return reply{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if r.ID == 0 {
		return reply{}, fmt.Errorf("%w: a reply without id", ErrProtocol)
	}
	return r, nil
}

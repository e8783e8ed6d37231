package api

import (
	"errors"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	maxBeat  = 16 << 10 // bytes of a beat's body
	formType = "application/x-www-form-urlencoded"
)

// push takes a heartbeat: /push/{token}?status=up|down|degraded&msg=&ping=, as Uptime Kuma has it; the parameters may come as
// a form in the body as well. Whatever cannot be understood is refused and not recorded: a beat that says down in a way that
// nobody reads must not count as up.
func (a *API) push(c *gin.Context) {
	beat, err := a.readBeat(c)
	if err != nil {
		a.fail(c, err)
		return
	}
	err = a.svc.Beat(c.Param("token"), beat)
	if errors.Is(err, monitor.ErrNotFound) {
		// Only wrong tokens are limited: the beat of a job must not be lost because another behind the same proxy is set up
		// wrongly. The look-up costs no more than the limit does.
		from := c.ClientIP()
		if wait := a.wrongPushes.wait(from); wait > 0 {
			a.fail(c, tooManyRequests("too many wrong push tokens from this address", wait))
			return
		}
		a.wrongPushes.count(from)
		a.fail(c, newProblem(http.StatusNotFound, "", "no monitor has this push token"))
		return
	}
	if err != nil {
		a.fail(c, err)
		return
	}
	a.answer(c, http.StatusOK, map[string]bool{"ok": true})
}

// readBeat reads the parameters from the query and the body.
func (a *API) readBeat(c *gin.Context) (service.Beat, error) {
	form, err := formBody(c.Writer, c.Request)
	if err != nil {
		return service.Beat{}, err
	}
	p := beatParams{}
	p.read("query", c.Request.URL.RawQuery)
	p.read("body", form)
	beat := p.beat()
	if len(p.faults) > 0 {
		return service.Beat{}, invalid(p.faults)
	}
	return beat, nil
}

// formBody returns the body when it is a form, and an error when it is anything else but empty.
func formBody(w http.ResponseWriter, r *http.Request) (string, error) {
	text, err := readAll(w, r, maxBeat, bodyTimeout)
	if err != nil || len(text) == 0 {
		return "", err
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	encoding, charset := r.Header.Get("Content-Encoding"), params["charset"]
	if err != nil || media != formType || encoding != "" && encoding != "identity" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", newProblem(http.StatusUnsupportedMediaType, "",
			"status, msg and ping belong into the query, or into a body of the type "+formType+" in UTF-8; nothing was recorded").with("Accept", formType)
	}
	return string(text), nil
}

// beatParam is a parameter that was given, and where.
type beatParam struct{ location, value string }

// beatParams are the parameters of a beat, and all that is wrong with them.
type beatParams struct {
	status, msg, ping *beatParam // nil: not given
	faults            []Fault
}

func (p *beatParams) wrong(location, message, value string) {
	p.faults = append(p.faults, Fault{Location: location, Message: message, Value: value})
}

// read takes parameters from text: each that is known once, and no other.
func (p *beatParams) read(where, text string) {
	values, err := url.ParseQuery(text)
	if err != nil {
		p.wrong(where, "cannot be read: its escapes are wrong, or it has a semicolon", "")
	}
	for _, name := range sortedKeys(values) {
		location := where + "." + sdk.CleanText(name, 100)
		var param **beatParam
		switch name {
		case "status":
			param = &p.status
		case "msg":
			param = &p.msg
		case "ping":
			param = &p.ping
		default:
			p.wrong(location, unknownName([]string{"msg", "ping", "status"}, name), "")
			continue
		}
		switch {
		case len(values[name]) > 1:
			p.wrong(location, "is given more than once", "")
		case *param != nil:
			p.wrong(location, "is in the query as well; give it once", "")
		default:
			*param = &beatParam{location, values[name][0]}
		}
	}
}

// beat returns what the parameters say. Nothing given is up, for a job that only says that it was there; an empty status is
// a fault, for it comes of a variable that was not set. An empty msg or ping is as good as none.
func (p *beatParams) beat() service.Beat {
	beat := service.Beat{Status: sdk.Up}
	if s := p.status; s != nil {
		status, err := sdk.ParseStatus(strings.ToLower(s.value))
		if err != nil || status == sdk.Unknown {
			p.wrong(s.location, "must be up, degraded or down", s.value)
		}
		beat.Status = status
	}
	if m := p.msg; m != nil {
		if !utf8.ValidString(m.value) {
			p.wrong(m.location, "must be UTF-8", "")
		}
		beat.Message = m.value
	}
	if g := p.ping; g != nil && g.value != "" {
		ms, err := strconv.ParseFloat(g.value, 64)
		if err != nil || math.IsNaN(ms) || ms < 0 || ms > 24*60*60*1000 {
			p.wrong(g.location, "must be milliseconds, 0 to 86400000", g.value)
			ms = 0
		}
		beat.Ping = time.Duration(ms * float64(time.Millisecond))
	}
	return beat
}

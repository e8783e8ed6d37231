package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// push takes a heartbeat: /push/{token}?status=up|down|degraded&msg=&ping=, as Uptime Kuma has it. Parameters that it does
// not know are ignored, for scripts that were written for others send some.
func (a *API) push(c *gin.Context) {
	beat, faults := readBeat(c)
	if len(faults) > 0 {
		a.fail(c, invalid(faults))
		return
	}
	err := a.svc.Beat(c.Param("token"), beat)
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

func readBeat(c *gin.Context) (service.Beat, []Fault) {
	beat := service.Beat{Status: sdk.Up}
	var faults []Fault
	if text := c.Query("status"); text != "" {
		status, err := sdk.ParseStatus(strings.ToLower(text))
		if err != nil || status == sdk.Unknown {
			faults = append(faults, Fault{Location: "query.status", Message: "must be up, degraded or down", Value: text})
		}
		beat.Status = status
	}
	beat.Message = c.Query("msg")
	if !utf8.ValidString(beat.Message) {
		faults = append(faults, Fault{Location: "query.msg", Message: "must be UTF-8"})
	}
	if text := c.Query("ping"); text != "" {
		ms, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(ms) || ms < 0 || ms > 24*60*60*1000 {
			faults = append(faults, Fault{Location: "query.ping", Message: "must be milliseconds, 0 to 86400000", Value: text})
			ms = 0
		}
		beat.Ping = time.Duration(ms * float64(time.Millisecond))
	}
	return beat, faults
}

package api

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

const (
	maxArchive     = 64 << 20 // bytes; the host takes no more
	archiveTimeout = time.Minute
	maxUploads     = 2 // archives in memory at once
)

// archiveTypes are the media types under which an archive may be sent.
func archiveTypes() []string {
	return []string{"application/gzip", "application/octet-stream", "application/x-gzip"}
}

type archiveKey struct{}

// readArchive reads a body that is an archive, into memory: installs wait for each other, and one that waited for a slow
// client would hold up all others. Few are let in at once.
func (a *API) readArchive(ctx huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(ctx)
	select {
	case a.uploads <- struct{}{}:
		defer func() { <-a.uploads }()
	default:
		a.fail(c, tooManyRequests("other plugins are being installed; try again when that is done", 10))
		return
	}
	archive, err := readArchive(c.Writer, c.Request)
	if err != nil {
		a.fail(c, err)
		return
	}
	next(huma.WithValue(ctx, archiveKey{}, archive))
}

func readArchive(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		if media, _, err := mime.ParseMediaType(given); err != nil || !slices.Contains(archiveTypes(), media) {
			accept := strings.Join(archiveTypes(), ", ")
			return nil, newProblem(http.StatusUnsupportedMediaType, "", "the body must be the archive itself: "+accept).with("Accept", accept)
		}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, newProblem(http.StatusUnsupportedMediaType, "", "a body must not be compressed again").with("Accept-Encoding", "identity")
	}
	archive, err := readAll(w, r, maxArchive, archiveTimeout)
	if err == nil && len(archive) == 0 {
		err = newProblem(http.StatusBadRequest, "", "the body is empty; the archive of a plugin is expected")
	}
	return archive, err
}

// archiveOf returns what readArchive read.
func archiveOf(ctx context.Context) io.Reader {
	archive, _ := ctx.Value(archiveKey{}).([]byte)
	return bytes.NewReader(archive)
}

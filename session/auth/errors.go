package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
)

// statusError is a token server's refusal.
type statusError struct {
	code         int
	status, said string
}

func (e *statusError) Error() string {
	if e.said == "" {
		return e.status
	}
	return e.status + ": " + e.said
}

// askOtherwise tells whether the server may have refused the way it was asked. As of 2018, JFrog's says 401 to a POST, Google's 404,
// others 400 or 405.
func (e *statusError) askOtherwise() bool {
	switch e.code {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		return true
	}
	return false
}

// errElsewhere: a token server redirects to another server.
var errElsewhere = errors.New("redirected to another server")

// mayPass tells whether asking again may help.
func mayPass(err error) bool {
	if e := (*statusError)(nil); errors.As(err, &e) {
		return e.code == http.StatusTooManyRequests || e.code == http.StatusRequestTimeout || e.code >= 500 && e.code != http.StatusNotImplemented
	}
	return unreachable(err) && !errors.Is(err, errElsewhere)
}

// unreachable tells whether there was no answer at all.
func unreachable(err error) bool {
	e := (*url.Error)(nil)
	return errors.As(err, &e) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// codeOf is the code for the daemon. Unavailable makes it try the next client, which may be on another network.
func codeOf(err error) codes.Code {
	e := (*statusError)(nil)
	switch {
	case errors.As(err, &e):
		switch e.code {
		case http.StatusUnauthorized:
			return codes.Unauthenticated
		case http.StatusForbidden:
			return codes.PermissionDenied
		case http.StatusTooManyRequests:
			return codes.ResourceExhausted
		}
		return codes.Unknown
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case unreachable(err):
		return codes.Unavailable
	}
	return codes.Unknown
}

// reason finds the text in a token server's or registry's error.
func reason(body []byte) string {
	var e struct {
		Details string `json:"details"`
		Message string `json:"message"`
		Errors  []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	switch {
	case e.Details != "":
		return clip(e.Details)
	case e.Message != "":
		return clip(e.Message)
	case len(e.Errors) > 0:
		return clip(strings.TrimSpace(e.Errors[0].Message))
	}
	return ""
}

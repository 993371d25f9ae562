package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// ErrUnauthorized is returned when a registry, or its token server, refuses the credentials it was shown, or wants some and there
// are none.
var ErrUnauthorized = errors.New("authorization failed")

// deniedError says who refused what.
type deniedError struct {
	host string
	why  string
}

func (e *deniedError) Error() string {
	return fmt.Sprintf("registry %s denies access: %s", e.host, e.why)
}
func (e *deniedError) Unwrap() error { return ErrUnauthorized }

// UnreachableError is returned when a host could not be spoken to.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("registry %s cannot be reached: %v", e.Host, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// StatusError is an answer by which a host said that it is unwell, after all attempts.
type StatusError struct {
	Host   string
	Status string
	Code   int
	// Message is what the host said about it; may be empty.
	Message string
	// RetryAfter is how long the host wants to be left alone; 0 if it did not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("registry %s answered %s", e.Host, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// newStatusError reads and closes the answer's body.
func newStatusError(resp *http.Response) *StatusError {
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	after, _ := retryAfter(resp.Header)
	return &StatusError{
		Host: resp.Request.URL.Host, Status: resp.Status, Code: resp.StatusCode, Message: registryMessage(body), RetryAfter: after,
	}
}

// IsUnreachable tells whether err says that nobody useful answered: no connection, or a gateway that had none.
func IsUnreachable(err error) bool {
	var u *UnreachableError
	var s *StatusError
	return errors.As(err, &u) || errors.As(err, &s) && s.Code != http.StatusTooManyRequests
}

// Error says what was being done with which repository. errors.Is finds ErrUnauthorized, errdefs.ErrNotFound and the context's
// errors in it, errors.As *UnreachableError and *StatusError. Its text holds no credentials and no queries of URLs; that of what
// it wraps may.
type Error struct {
	// Op is what was being done: "resolve", "fetch" or "push".
	Op string
	// Ref is what with.
	Ref string
	// Err is why it failed.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %s", e.Op, e.Ref, reason(e.Err)) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is finds ErrUnauthorized in what containerd reports its own way.
func (e *Error) Is(target error) bool {
	return target == ErrUnauthorized && isDenied(e.Err)
}

func wrap(op, ref string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Ref: redact(ref), Err: err}
}

func isDenied(err error) bool {
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, docker.ErrInvalidAuthorization) {
		return true
	}
	var s remoteserrors.ErrUnexpectedStatus
	return errors.As(err, &s) && (s.StatusCode == http.StatusUnauthorized || s.StatusCode == http.StatusForbidden)
}

// reason is the part of an error that people need.
func reason(err error) string {
	var (
		unreachable *UnreachableError
		status      *StatusError
		unexpected  remoteserrors.ErrUnexpectedStatus
		denied      *deniedError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded.Error()
	case errors.As(err, &denied):
		return denied.Error()
	case errors.As(err, &unreachable):
		return unreachable.Error()
	case errors.As(err, &status):
		return status.Error()
	case errors.As(err, &unexpected):
		s := "registry answered " + unexpected.Status
		if m := registryMessage(unexpected.Body); m != "" {
			s += ": " + m
		}
		return s
	case errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "rejecting"): // a manifest that is too large
		return "not found"
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return "access denied: the repository does not exist, or it needs other credentials"
	}
	return redact(err.Error())
}

// registryMessage reads the errors that a registry puts into an answer, within reason.
func registryMessage(body []byte) string {
	var parsed struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &parsed) != nil {
		return ""
	}
	var parts []string
	for _, e := range parsed.Errors {
		if s := strings.Trim(strings.ToLower(e.Code)+": "+e.Message, ": "); s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		parts = []string{parsed.Details + parsed.Message}
	}
	s := strings.Join(parts, "; ")
	if len(s) > 500 {
		s = s[:500] + "…"
	}
	return redact(strings.ToValidUTF8(s, "�"))
}

var urls = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+`)

// redact takes user names, passwords, queries and fragments out of the URLs in a text. Signed URLs carry their secret in the query.
func redact(s string) string {
	return urls.ReplaceAllStringFunc(s, func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil {
			scheme, _, _ := strings.Cut(raw, "://")
			return scheme + "://…"
		}
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		return u.String()
	})
}

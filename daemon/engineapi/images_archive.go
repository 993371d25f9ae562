package engineapi

import (
	"io"
	"net/http"
	"time"
)

func (a *api) saveImage(w http.ResponseWriter, r *http.Request) error {
	return a.save(w, r, []string{r.PathValue("name")})
}

func (a *api) saveImages(w http.ResponseWriter, r *http.Request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return invalid("name the images to save")
	}
	return a.save(w, r, names)
}

func (a *api) save(w http.ResponseWriter, r *http.Request, names []string) error {
	begun := false
	err := a.Images.Save(r.Context(), names, func() io.Writer {
		begun = true
		w.Header().Set("Content-Type", "application/x-tar")
		w.WriteHeader(http.StatusOK)
		return w
	})
	if err != nil && begun {
		// The answer must not end as one that is whole does.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	}
	return err
}

// loadImages reads an archive from the body.
func (a *api) loadImages(w http.ResponseWriter, r *http.Request) error {
	quiet := boolParam(r.URL.Query(), "quiet")
	out := newStream(w, r)
	show := showProgress(out)
	if quiet {
		show = nil
	}
	list, err := a.Images.Load(r.Context(), r.Body, show)
	if err != nil {
		return out.End(err)
	}
	for _, l := range list {
		text := "Loaded image: " + l.Name + "\n"
		if l.Name == "" {
			text = "Loaded image ID: " + l.ID.String() + "\n"
		}
		_ = out.Send(message{Stream: text}) // a client that left has its images all the same
	}
	return out.End(nil)
}

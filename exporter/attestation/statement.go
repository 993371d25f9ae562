package attestation

import (
	"context"
	"encoding/json"
	"fmt"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Subject is a thing by name and digest; see in-toto's ResourceDescriptor, of which this is what BuildKit's attestations use.
type Subject struct {
	Name string `json:"name"`
	// Digest holds the encoded digest by the name of its algorithm.
	Digest map[string]string `json:"digest"`
}

// header is what all statements of in-toto begin with.
type header struct {
	Type          string    `json:"_type"`
	PredicateType string    `json:"predicateType"`
	Subject       []Subject `json:"subject"`
}

// Statement is one finished statement.
type Statement struct {
	// Type is the predicate's.
	Type string
	// Path is where the attestation was found, or what it is called.
	Path string
	// value is written as JSON in the form that its place wants.
	value statement
}

// JSON is the statement on one line, as it stands in images.
func (s Statement) JSON() ([]byte, error) { return json.Marshal(s.value) }

// Indented is the statement for people, as it stands in files.
func (s Statement) Indented() ([]byte, error) { return json.MarshalIndent(s.value, "", "  ") }

// Statements reads what attestations, which are unbundled, say, and says it of self where they name no other subject. image is what
// [Attestation.Content] is told.
func (r Reader) Statements(ctx context.Context, list []Attestation, self []Subject, image []ocispecs.Descriptor) ([]Statement, error) {
	out := make([]Statement, len(list))
	eg, egCtx := errgroup.WithContext(ctx)
	for i, a := range list {
		eg.Go(func() error {
			predicate, err := r.predicate(egCtx, a, image)
			if err == nil {
				predicate, err = r.supplement(egCtx, a, predicate)
			}
			if err != nil {
				return err
			}
			subjects, err := subjectsOf(a, self)
			if err != nil {
				return err
			}
			h := header{Type: intoto.StatementInTotoV1, PredicateType: a.Type, Subject: subjects}
			out[i] = Statement{Type: a.Type, Path: a.Path, value: statement{h, predicate}}
			return nil
		})
	}
	return out, eg.Wait()
}

func subjectsOf(a Attestation, self []Subject) ([]Subject, error) {
	named := a.Subjects
	if len(named) == 0 {
		named = []result.InTotoSubject{{Kind: gwpb.InTotoSubjectKind_Self}}
	}
	subjects := []Subject{}
	for _, s := range named {
		switch s.Kind {
		case gwpb.InTotoSubjectKind_Self:
			for _, own := range self {
				subjects = append(subjects, own)
				if s.Name != "" && s.Name != "_" {
					subjects = append(subjects, Subject{Name: s.Name, Digest: own.Digest})
				}
			}
		case gwpb.InTotoSubjectKind_Raw:
			for _, d := range s.Digest {
				if err := d.Validate(); err != nil {
					return nil, fmt.Errorf("subject %q of attestation %s: %w", s.Name, a.Path, err)
				}
			}
			name := s.Name
			if name == "" {
				name = "_"
			}
			subjects = append(subjects, Subject{Name: name, Digest: result.ToDigestMap(s.Digest...)})
		default:
			return nil, fmt.Errorf("attestation %s: unknown kind of subject %d", a.Path, s.Kind)
		}
	}
	return subjects, nil
}

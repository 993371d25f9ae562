package provenance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// buildStep is one step of a definition.
type buildStep struct {
	ID     string   `json:"id,omitempty"`
	Op     *pb.Op   `json:"op,omitempty"`
	Inputs []string `json:"inputs,omitempty"`
}

// buildConfig is a definition.
type buildConfig struct {
	Definition    []buildStep              `json:"llbDefinition,omitempty"`
	DigestMapping map[digest.Digest]string `json:"digestMapping,omitempty"`
}

// sourceMap says which lines of which files steps were written in.
type sourceMap struct {
	Locations map[string]*pb.Locations `json:"locations,omitempty"`
	Infos     []sourceInfo             `json:"infos,omitempty"`
}

type sourceInfo struct {
	Filename string `json:"filename,omitempty"`
	Language string `json:"language,omitempty"`
	Data     []byte `json:"data,omitempty"`
	buildConfig
}

// steps lists the ops of a definition, inputs first, each under a name of its own.
func steps(def *pb.Definition) (*buildConfig, error) {
	if len(def.GetDef()) == 0 {
		return &buildConfig{}, nil
	}
	parsed := make(map[digest.Digest]*pb.Op, len(def.Def))
	var last digest.Digest
	for _, dt := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(dt); err != nil {
			return nil, fmt.Errorf("read definition for provenance: %w", err)
		}
		last = digest.FromBytes(dt)
		parsed[last] = op
	}
	order, err := inputsFirst(parsed, last)
	if err != nil {
		return nil, err
	}
	c := &buildConfig{DigestMapping: map[digest.Digest]string{}}
	for i, d := range order {
		c.DigestMapping[d] = fmt.Sprintf("step%d", i)
	}
	for _, d := range order {
		op := parsed[d]
		s := buildStep{ID: c.DigestMapping[d], Inputs: []string{}}
		for _, in := range op.Inputs {
			s.Inputs = append(s.Inputs, fmt.Sprintf("%s:%d", c.DigestMapping[digest.Digest(in.Digest)], in.Index))
		}
		s.Op = public(op)
		c.Definition = append(c.Definition, s)
	}
	return c, nil
}

// inputsFirst orders ops depth first, without recursing: definitions may be deep.
func inputsFirst(parsed map[digest.Digest]*pb.Op, last digest.Digest) ([]digest.Digest, error) {
	var order []digest.Digest
	entered, done := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for todo := []digest.Digest{last}; len(todo) > 0; {
		d := todo[len(todo)-1]
		op := parsed[d]
		if op == nil {
			return nil, errors.New("read definition for provenance: an input is missing")
		}
		if entered[d] {
			todo = todo[:len(todo)-1]
			if !done[d] {
				done[d] = true
				order = append(order, d)
			}
			continue
		}
		entered[d] = true
		for _, in := range slices.Backward(op.Inputs) {
			if next := digest.Digest(in.GetDigest()); !entered[next] {
				todo = append(todo, next)
			}
		}
	}
	return order, nil
}

// public is an op without its inputs, which are told beside it, without names of sessions, and without credentials.
func public(op *pb.Op) *pb.Op {
	op.Inputs = nil
	if s := op.GetSource(); s != nil {
		s.Identifier = redact(s.Identifier)
		for k, v := range s.Attrs {
			switch {
			case k == pb.AttrLocalSessionID || k == pb.AttrLocalUniqueID:
				delete(s.Attrs, k)
			case k == pb.AttrHTTPHeaderPrefix+"authorization", strings.EqualFold(k, pb.AttrHTTPHeaderPrefix+"authorization"):
				s.Attrs[k] = "xxxxx"
			default:
				s.Attrs[k] = redact(v)
			}
		}
	}
	if e := op.GetExec(); e != nil {
		redactAll(e.GetMeta().GetArgs())
		redactAll(e.GetMeta().GetEnv())
		if p := e.GetMeta().GetProxyEnv(); p != nil {
			p.HttpProxy, p.HttpsProxy, p.FtpProxy, p.AllProxy = redact(p.HttpProxy), redact(p.HttpsProxy), redact(p.FtpProxy), redact(p.AllProxy)
		}
	}
	return op
}

func redactAll(list []string) {
	for i := range list {
		list[i] = redact(list[i])
	}
}

// sources is the source map of a definition whose steps have names; nil if the frontend gave none.
func sources(def *pb.Definition, names map[digest.Digest]string) (*sourceMap, error) {
	if def.GetSource() == nil || len(def.Source.Infos) == 0 {
		return nil, nil
	}
	m := &sourceMap{Locations: map[string]*pb.Locations{}}
	for _, info := range def.Source.Infos {
		c, err := steps(info.GetDefinition())
		if err != nil {
			return nil, err
		}
		m.Infos = append(m.Infos, sourceInfo{
			Filename: info.Filename, Language: info.Language, Data: []byte(redact(string(info.Data))), buildConfig: *c,
		})
	}
	for d, locations := range def.Source.Locations {
		if name, ok := names[digest.Digest(d)]; ok {
			m.Locations[name] = locations
		}
	}
	return m, nil
}

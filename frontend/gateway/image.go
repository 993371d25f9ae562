package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
	"google.golang.org/grpc/codes"
)

// image is a frontend's image: its root file system as a graph, and how its program is run.
type image struct {
	def    *pb.Definition
	config dockerspec.DockerOCIImage
	digest digest.Digest // of the manifest; empty if it came from a graph
}

// Labels and environment of frontend images, as BuildKit names them.
const (
	labelCaps        = "moby.buildkit.frontend.caps"
	labelNoNetwork   = "moby.buildkit.frontend.network.none"
	capInputs        = "moby.buildkit.frontend.inputs"
	metadataDir      = "/run/config/buildkit/metadata"
	metadataFile     = "frontend.bin"
	defaultProgram   = "/run"
	frontendCapsOpt  = "frontend.caps"
	envOption        = "BUILDKIT_FRONTEND_OPT_"
	envSession       = "BUILDKIT_SESSION_ID="
	envWorkers       = "BUILDKIT_WORKERS="
	envProduct       = "BUILDKIT_EXPORTEDPRODUCT="
	capNameSeparator = ","
)

// findImage finds the image that source names: a named context of the request first, an image of a registry otherwise.
func findImage(ctx context.Context, c *Client, source string) (*image, error) {
	img, st := &image{}, (*llb.State)(nil)
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	named, err := ui.NamedContext(source, dockerui.ContextOpt{CaptureDigest: &img.digest})
	if err != nil {
		return nil, err
	}
	if named != nil {
		var config *dockerspec.DockerOCIImage
		if st, config, err = named.Load(ctx); err != nil {
			return nil, fmt.Errorf("load frontend image from context %q: %w", source, err)
		}
		if config != nil {
			img.config = *config
		}
	}
	if st == nil {
		if st, err = img.resolve(ctx, c, source); err != nil {
			return nil, err
		}
	}
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, fmt.Errorf("frontend image %q: %w", source, err)
	}
	img.def = def.ToPB()
	return img, nil
}

// resolve asks the registry. What it says is pinned, so that what runs is what was asked about.
func (i *image) resolve(ctx context.Context, c *Client, source string) (*llb.State, error) {
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return nil, fmt.Errorf("frontend source %q: %w", source, err)
	}
	name := reference.TagNameOnly(named).String()
	ref, dgst, config, err := c.ResolveImageConfig(ctx, name, sourceresolver.Opt{
		LogName: "resolve image config for docker-image://" + name, ImageOpt: &sourceresolver.ResolveImageOpt{},
	})
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config, &i.config); err != nil {
		return nil, fmt.Errorf("config of frontend image %q: %w", source, err)
	}
	if named, err = reference.ParseNormalizedNamed(ref); err != nil {
		return nil, fmt.Errorf("frontend image %q resolved to %q: %w", source, ref, err)
	}
	if i.digest = dgst; dgst != "" {
		if named, err = reference.WithDigest(named, dgst); err != nil {
			return nil, fmt.Errorf("frontend image %q resolved to %q: %w", source, dgst, err)
		}
	}
	st := llb.Image(named.String())
	return &st, nil
}

// checkCaps refuses a request that needs what the frontend's image does not say it can do.
func (i *image) checkCaps(r frontend.Request) error {
	have := capNames(i.config.Config.Labels[labelCaps])
	if preCaps[i.digest] {
		have[capInputs] = true
	}
	want := capNames(r.Opts[frontendCapsOpt])
	if len(r.Inputs) > 0 {
		want[capInputs] = true
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !have[name] {
			return grpcerrors.WrapCode(errdefs.NewUnsupportedFrontendCapError(name), codes.Unimplemented)
		}
	}
	return nil
}

// capNames reads a list of capabilities. What follows a plus, "forward", is for the frontend to know.
func capNames(list string) map[string]bool {
	names := map[string]bool{}
	for c := range strings.SplitSeq(list, capNameSeparator) {
		if name, _, _ := strings.Cut(c, "+"); name != "" {
			names[name] = true
		}
	}
	return names
}

// preCaps are releases of docker/dockerfile that take inputs and were made before there was a label to say so: 1.1.6 and 1.1.7,
// plain and experimental.
var preCaps = map[digest.Digest]bool{
	"sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d": true,
	"sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069": true,
	"sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4": true,
	"sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44": true,
}

func (i *image) args() []string {
	if len(i.config.Config.Entrypoint) > 0 {
		return i.config.Config.Entrypoint
	}
	return []string{defaultProgram}
}

func (i *image) cwd() string {
	if dir := i.config.Config.WorkingDir; dir != "" {
		return dir
	}
	return "/"
}

// env is the image's environment and what the client library of frontends reads.
func (i *image) env(b frontend.Bridge, r frontend.Request) []string {
	env := slices.Clone(i.config.Config.Env)
	for n, k := range slices.Sorted(maps.Keys(r.Opts)) {
		env = append(env, envOption+strconv.Itoa(n)+"="+k+"="+r.Opts[k])
	}
	workers, err := json.Marshal(b.Workers())
	if err != nil {
		workers = []byte("[]") // strings and platforms always encode
	}
	return append(env, envSession+b.Session(), envWorkers+string(workers), envProduct+b.Product())
}

// container composes the frontend's root file system, which it may write to and which forgets, and tells it of the graph that it
// came from.
func (i *image) container(ctx context.Context, b frontend.Bridge) (gwclient.Container, error) {
	root, err := b.Solve(ctx, i.def, true)
	if err != nil {
		return nil, err
	}
	req := gwclient.NewContainerRequest{Mounts: []gwclient.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: &Reference{Reference: root}}}}
	if none, err := strconv.ParseBool(i.config.Config.Labels[labelNoNetwork]); err == nil && none {
		req.NetMode = pb.NetMode_NONE
	}
	// Where images keep their program at /run there is no room for it.
	if st, err := root.StatFile(ctx, gwclient.StatRequest{Path: defaultProgram}); err != nil || st.IsDir() {
		about, err := i.metadata(ctx, b)
		if err != nil {
			return nil, err
		}
		req.Mounts = append(req.Mounts, gwclient.Mount{
			Dest: metadataDir, MountType: pb.MountType_BIND, Readonly: true, Ref: &Reference{Reference: about},
		})
	}
	return b.NewContainer(ctx, req)
}

// metadata is a directory with the graph that the frontend came from.
func (i *image) metadata(ctx context.Context, b frontend.Bridge) (frontend.Reference, error) {
	data, err := i.def.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode definition of frontend: %w", err)
	}
	name := llb.WithCustomName("[internal] describe the frontend's image")
	def, err := llb.Scratch().File(llb.Mkfile("/"+metadataFile, 0o444, data), name).Marshal(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe frontend: %w", err)
	}
	return b.Solve(ctx, def.ToPB(), true)
}

package command

import (
	"os"

	"github.com/spf13/pflag"
)

// registerBuild declares docker's build flags, and those of buildx that are in common use.
func registerBuild(fs *pflag.FlagSet, o *buildOptions) {
	fs.StringVarP(&o.File, "file", "f", "", "Dockerfile, - for standard input (default CONTEXT/Dockerfile)")
	fs.StringArrayVarP(&o.Tags, "tag", "t", nil, "name of the image, name:tag")
	fs.StringArrayVarP(&o.Outputs, "output", "o", nil, "where the outcome goes: DIR, - for a tar, or type=image|oci|docker|local|tar|cacheonly,dest=…")
	fs.StringArrayVar(&o.BuildArgs, "build-arg", nil, "build argument, NAME=value or NAME from the environment")
	fs.StringArrayVar(&o.BuildContexts, "build-context", nil, "further context: name=DIR, name=URL, name=docker-image://REF or name=oci-layout://DIR[:TAG]")
	fs.StringArrayVar(&o.Labels, "label", nil, "label of the image, name=value")
	fs.StringArrayVar(&o.Annotations, "annotation", nil, "annotation of the image, name=value")
	fs.StringArrayVar(&o.Attests, "attest", nil, "say something of the result: type=provenance[,mode=max|min] or type=sbom[,generator=IMAGE]")
	fs.StringVar(&o.Provenance, "provenance", "", "short for --attest type=provenance: true, false or mode=max,…")
	fs.StringVar(&o.SBOM, "sbom", "", "short for --attest type=sbom: true, false or generator=IMAGE")
	fs.StringArrayVar(&o.Secrets, "secret", nil, "secret for the build, id=NAME[,src=FILE|,env=VARIABLE]")
	fs.StringSliceVar(&o.AllowSecretLeak, "allow-secret-leak", nil, "ids of secrets whose values may be in what is built")
	fs.StringArrayVar(&o.SSH, "ssh", nil, "ssh agent or keys for the build, default or ID[=SOCKET|KEY[,KEY]]")
	fs.StringSliceVar(&o.Platforms, "platform", defaultPlatform(), "platforms to build for")
	fs.StringVar(&o.Target, "target", "", "stage to build")
	fs.BoolVar(&o.NoCache, "no-cache", false, "run every step")
	fs.StringSliceVar(&o.NoCacheFilter, "no-cache-filter", nil, "stages to run without the cache")
	fs.BoolVar(&o.Pull, "pull", false, "ask the registry for newer base images")
	fs.BoolVar(&o.Push, "push", false, "push the image")
	fs.BoolVar(&o.Load, "load", false, "accepted for docker's sake: images go to the local store anyway")
	fs.StringVar(&o.Network, "network", "default", "network of RUN steps: default, host or none")
	fs.StringArrayVar(&o.AddHosts, "add-host", nil, "line of /etc/hosts in RUN steps, host:ip")
	fs.StringArrayVar(&o.Allow, "allow", nil, "entitlement the build may use: network.host, security.insecure, device or device=NAME[,alias=X]")
	fs.StringVar(&o.ShmSize, "shm-size", "", "size of /dev/shm in RUN steps")
	fs.StringArrayVar(&o.Ulimits, "ulimit", nil, "limit of RUN steps, name=soft[:hard]")
	fs.StringVar(&o.CgroupParent, "cgroup-parent", "", "cgroup of RUN steps")
	fs.StringVarP(&o.Memory, "memory", "m", "", "memory of RUN steps")
	fs.StringVar(&o.MemorySwap, "memory-swap", "", "memory and swap of RUN steps, -1 for unlimited swap")
	fs.Int64VarP(&o.CPUShares, "cpu-shares", "c", 0, "relative weight of CPU time")
	fs.Int64Var(&o.CPUPeriod, "cpu-period", 0, "period of the CPU quota in microseconds")
	fs.Int64Var(&o.CPUQuota, "cpu-quota", 0, "CPU quota in microseconds per period")
	fs.StringVar(&o.CPUSetCPUs, "cpuset-cpus", "", "CPUs that RUN steps may use, 0-3 or 0,1")
	fs.StringVar(&o.CPUSetMems, "cpuset-mems", "", "memory nodes that RUN steps may use")
	fs.StringArrayVar(&o.CacheFrom, "cache-from", nil, "cache of another machine to use")
	fs.StringArrayVar(&o.CacheTo, "cache-to", nil, "where to write the cache for other machines")
	fs.StringVar(&o.SourceDateEpoch, "source-date-epoch", "", "time that nothing in the outcome is later than: seconds since 1970, or git for the last commit's (default $SOURCE_DATE_EPOCH)")
	fs.BoolVar(&o.checkReproducible, "check-reproducible", false, "build twice without cache, and say which steps and paths differ")
	fs.BoolVar(&o.Check, "check", false, "check the Dockerfile and build nothing")
	fs.StringVar(&o.Call, "call", "", "ask instead of building: check, outline or targets")
	fs.StringVar(&o.progress, "progress", progressDefault(), "how progress is shown: auto, tty, plain, quiet or rawjson")
	fs.BoolVar(&o.detach, "detach", false, "build in the background: print the build's id and return; see slipway attach, logs, ls and cancel")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "show nothing but the image's id")
	fs.StringVar(&o.iidFile, "iidfile", "", "file to write the image's id to")
	fs.StringVar(&o.metadataFile, "metadata-file", "", "file to write the outcome to, as JSON")

	// Docker's flags that have no effect here, so that scripts keep working.
	for _, name := range []string{"rm", "force-rm", "compress"} {
		fs.Bool(name, name == "rm", "accepted for docker's sake")
		_ = fs.MarkHidden(name) // fails only for a flag that does not exist
	}
}

func defaultPlatform() []string {
	if p := os.Getenv("DOCKER_DEFAULT_PLATFORM"); p != "" {
		return []string{p}
	}
	return nil
}

func progressDefault() string {
	if p := os.Getenv("BUILDKIT_PROGRESS"); p != "" {
		return p
	}
	return "auto"
}

package request

// Options are the flags of a build, as the user wrote them.
type Options struct {
	// Context is a directory, "-" for standard input, or the URL of a git repository, a tarball or a Dockerfile.
	Context string
	// File is the Dockerfile: a path from the working directory, or "-" for standard input. Empty is the context's own.
	File string

	Tags          []string
	BuildArgs     []string
	Labels        []string
	Annotations   []string
	BuildContexts []string
	Secrets       []string
	SSH           []string
	Outputs       []string
	Platforms     []string
	NoCacheFilter []string
	AddHosts      []string
	Ulimits       []string
	Allow         []string
	CacheFrom     []string
	CacheTo       []string
	// Attests are what shall be said of the result, "type=provenance,…" or "type=sbom,…".
	Attests []string

	// SourceDateEpoch is the time that nothing in the outcome may be later than: seconds since 1970, "git" for the time of the context's
	// last commit, or empty for what the environment and build arguments say.
	SourceDateEpoch string

	Target       string
	Network      string
	ShmSize      string
	CgroupParent string
	Call         string
	Provenance   string
	SBOM         string

	Memory, MemorySwap     string
	CPUShares              int64
	CPUPeriod, CPUQuota    int64
	CPUSetCPUs, CPUSetMems string

	NoCache, Pull, Push, Load bool
	// AllowSecretLeak holds ids of secrets whose values may be in what is built.
	AllowSecretLeak []string
	// Check asks for the build checks only.
	Check bool
}

package ops

import (
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	apicapspb "github.com/moby/buildkit/util/apicaps/pb"
)

// supported lists the capabilities of LLB that work here. Clients send what the list promises, so what is not in it (git
// bundles, proxied networks, …) is not asked for.
func supported() []apicaps.CapID {
	return []apicaps.CapID{
		pb.CapSourceImage, pb.CapSourceImageResolveMode, pb.CapSourceImageLayerLimit, pb.CapSourceImageChecksum,
		pb.CapSourceLocal, pb.CapSourceLocalUnique, pb.CapSourceLocalSessionID, pb.CapSourceLocalIncludePatterns,
		pb.CapSourceLocalFollowPaths, pb.CapSourceLocalExcludePatterns, pb.CapSourceLocalSharedKeyHint,
		pb.CapSourceLocalDiffer, pb.CapSourceMetadataTransfer,
		pb.CapSourceGit, pb.CapSourceGitKeepDir, pb.CapSourceGitFullURL, pb.CapSourceGitHTTPAuth,
		pb.CapSourceGitKnownSSHHosts, pb.CapSourceGitMountSSHSock, pb.CapSourceGitSubdir, pb.CapSourceGitChecksum,
		pb.CapSourceGitSkipSubmodules, pb.CapSourceGitMTime, pb.CapSourceGitFetchByCommit, pb.CapSourceGitSignatureVerify,
		pb.CapSourceHTTP, pb.CapSourceHTTPAuth, pb.CapSourceHTTPChecksum, pb.CapSourceHTTPPerm, pb.CapSourceHTTPUIDGID,
		pb.CapSourceHTTPHeader, pb.CapSourceHTTPSignatureVerify,
		pb.CapSourceOCILayout, pb.CapSourceImageBlob,
		pb.CapBuildOpLLBFileName,
		pb.CapExecMetaBase, pb.CapExecMetaCgroupParent, pb.CapExecMetaNetwork, pb.CapExecMetaProxy, pb.CapExecMetaSecurity,
		pb.CapExecMetaSecurityDeviceWhitelistV1, pb.CapExecMetaSetsDefaultPath, pb.CapExecMetaUlimit,
		pb.CapExecMetaRemoveMountStubsRecursive, pb.CapExecMetaLinuxResources, pb.CapExecMetaCDI,
		pb.CapExecMountBind, pb.CapExecMountBindReadWriteNoOutput, pb.CapExecMountCache, pb.CapExecMountCacheSharing,
		pb.CapExecMountContentCache, pb.CapExecMountSelector, pb.CapExecMountTmpfs, pb.CapExecMountTmpfsSize,
		pb.CapExecMountSecret, pb.CapExecMountSSH, pb.CapExecCgroupsMounted, pb.CapExecSecretEnv, pb.CapExecValidExitCode,
		pb.CapFileBase, pb.CapFileRmWildcard, pb.CapFileCopyIncludeExcludePatterns, pb.CapFileCopyRequiredPaths,
		pb.CapFileRmNoFollowSymlink, pb.CapFileCopyAlwaysReplaceExistingDestPaths, pb.CapFileCopyModeStringFormat,
		pb.CapFileSymlinkCreate,
		pb.CapConstraints, pb.CapPlatform,
		pb.CapMetaIgnoreCache, pb.CapMetaDescription, pb.CapMetaExportCache,
		pb.CapMergeOp, pb.CapDiffOp, pb.CapPassthroughOp,
		pb.CapAnnotations, pb.CapAttestations, pb.CapSourceDateEpoch, pb.CapMultipleExporters, pb.CapSessionExporter,
		pb.CapRemoteCacheGHA, pb.CapRemoteCacheS3, pb.CapRemoteCacheAzBlob,
		// No matter of graphs: clients look here for what pruning and the build history can do, too.
		pb.CapGCFreeSpaceFilter, pb.CapHistoryFilters,
		pb.CapSourcePolicy, pb.CapSourcePolicySession,
	}
}

// Caps lists the ids of the LLB capabilities that work here, sorted.
func Caps() []string {
	ids := supported()
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	slices.Sort(out)
	return out
}

// APICaps is [Caps] in the form BuildKit's services send.
func APICaps() []*apicapspb.APICap {
	var out []*apicapspb.APICap
	for _, id := range Caps() {
		out = append(out, &apicapspb.APICap{ID: id, Enabled: true})
	}
	return out
}

// checkCaps returns a [CapabilityError] for the first capability that an op needs and this engine has not. meta may be nil.
func (f *Factory) checkCaps(meta *pb.OpMetadata) error {
	var missing []string
	for id := range meta.GetCaps() {
		if !f.caps[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &CapabilityError{ID: slices.Min(missing)}
}

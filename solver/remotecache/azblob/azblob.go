// Package azblob keeps caches in Azure's blob storage.
package azblob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/objects"
)

// What an upload holds in memory: blocks of so many bytes, so many at a time.
const (
	blockSize = 8 << 20
	blocks    = 4
)

// config are the attributes, with the names and defaults of BuildKit's.
type config struct {
	account          *url.URL
	accountName      string
	container        string
	prefix           string
	manifests, blobs string
	names            []string
	secret           string
}

func parse(attrs map[string]string) (c config, err error) {
	c = config{manifests: "manifests", blobs: "blobs", names: []string{"buildkit"}, secret: attrs["secret_access_key"]}
	account, ok := attrOrEnv(attrs, "account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL")
	if !ok {
		return c, errors.New("either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache")
	}
	if c.account, err = url.Parse(account); err != nil || c.account.Host == "" {
		return c, errors.New("azure storage account url provided is not a valid url")
	}
	if c.accountName, ok = attrOrEnv(attrs, "account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME"); !ok {
		c.accountName, _, _ = strings.Cut(c.account.Hostname(), ".")
	}
	if c.accountName == "" {
		return c, errors.New("unable to retrieve account name from account url or ${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache")
	}
	if c.container, ok = attrOrEnv(attrs, "container", "BUILDKIT_AZURE_STORAGE_CONTAINER"); !ok {
		c.container = "buildkit-cache"
	}
	c.prefix, _ = attrOrEnv(attrs, "prefix", "BUILDKIT_AZURE_STORAGE_PREFIX")
	if v, ok := attrs["manifests_prefix"]; ok {
		c.manifests = v
	}
	if v, ok := attrs["blobs_prefix"]; ok {
		c.blobs = v
	}
	if v, ok := attrs["name"]; ok {
		c.names = strings.Split(v, ";")
	}
	return c, nil
}

func attrOrEnv(attrs map[string]string, attr, variable string) (string, bool) {
	if v, ok := attrs[attr]; ok {
		return v, true
	}
	return os.LookupEnv(variable)
}

// New returns the place that the attributes name, reached through via. Access is by the account's key, secret_access_key, or by a shared access signature
// in the query of account_url. With write set, the container is made if there is none.
func New(ctx context.Context, attrs map[string]string, via *http.Client, write bool) (*objects.Place, error) {
	c, err := parse(attrs)
	if err != nil {
		return nil, err
	}
	client, err := c.client(via)
	if err != nil {
		return nil, err
	}
	if write {
		if _, err := client.Create(ctx, nil); err != nil && !mayBeThere(err) {
			return nil, fmt.Errorf("failed to create cache container %s: %w", c.container, err)
		}
	}
	where := c.account.Host + "/" + path.Join(c.container, c.prefix)
	return objects.New(objects.Options{
		Store: &store{config: c, client: client}, Read: c.names, Write: c.names, Title: "azblob://" + where,
		Location: remotecache.NewLocation("azblob", path.Join(where, c.blobs)),
	}), nil
}

// mayBeThere tells whether a container that could not be made may be there: who may write need not be one who may make containers.
func mayBeThere(err error) bool {
	return bloberror.HasCode(err, bloberror.ContainerAlreadyExists, bloberror.AuthorizationFailure,
		bloberror.AuthorizationPermissionMismatch, bloberror.InsufficientAccountPermissions)
}

func (c config) client(via *http.Client) (*container.Client, error) {
	to := *c.account
	to.Path = strings.TrimSuffix(to.Path, "/") + "/" + c.container
	o := &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: via}}
	switch {
	case c.secret != "":
		key, err := container.NewSharedKeyCredential(c.accountName, c.secret)
		if err != nil {
			return nil, fmt.Errorf("failed to create shared key: %w", err)
		}
		return container.NewClientWithSharedKeyCredential(to.String(), key, o)
	case to.RawQuery != "":
		return container.NewClientWithNoCredential(to.String(), o)
	}
	return nil, errors.New("azblob cache needs secret_access_key, or a shared access signature in account_url")
}

type store struct {
	config
	client *container.Client
}

var _ objects.Store = (*store)(nil)

func (s *store) blob(d digest.Digest) string { return path.Join(s.prefix, s.blobs, d.String()) }
func (s *store) named(name string) string    { return path.Join(s.prefix, s.manifests, name) }

// Has implements [objects.Store].
func (s *store) Has(ctx context.Context, d digest.Digest) (bool, error) {
	_, err := s.client.NewBlobClient(s.blob(d)).GetProperties(ctx, nil)
	if missing(err) {
		return false, nil
	}
	return err == nil, redact(err)
}

// Open implements [objects.Store].
func (s *store) Open(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return s.get(ctx, s.blob(d))
}

// Config implements [objects.Store].
func (s *store) Config(ctx context.Context, name string) (io.ReadCloser, error) {
	return s.get(ctx, s.named(name))
}

func (s *store) get(ctx context.Context, key string) (io.ReadCloser, error) {
	resp, err := s.client.NewBlobClient(key).DownloadStream(ctx, nil)
	if missing(err) {
		return nil, fmt.Errorf("blob %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, redact(err)
	}
	return resp.NewRetryReader(ctx, nil), nil
}

// Put implements [objects.Store].
func (s *store) Put(ctx context.Context, d digest.Digest, r io.ReaderAt, size int64) error {
	return s.put(ctx, s.blob(d), io.NewSectionReader(r, 0, size))
}

// PutConfig implements [objects.Store].
func (s *store) PutConfig(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, s.named(name), bytes.NewReader(data))
}

func (s *store) put(ctx context.Context, key string, r io.Reader) error {
	_, err := s.client.NewBlockBlobClient(key).UploadStream(ctx, struct{ io.Reader }{r}, &blockblob.UploadStreamOptions{
		BlockSize: blockSize, Concurrency: blocks,
	})
	return redact(err)
}

func missing(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.ContainerNotFound, bloberror.ResourceNotFound)
}

// redact keeps of an answer what people need: its address may hold a signature.
func redact(err error) error {
	var resp *azcore.ResponseError
	if errors.As(err, &resp) {
		return fmt.Errorf("the storage account answered %d %s", resp.StatusCode, resp.ErrorCode)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

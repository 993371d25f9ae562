// Package s3 keeps caches in S3 and what speaks its protocol.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/objects"
)

// maxCopy is the most that S3 copies in one request, in bytes.
const maxCopy = 5 << 30

// Opener opens places with connections that they share. Idle ones end by themselves.
type Opener struct{ client *awshttp.BuildableClient }

// NewOpener returns an opener.
func NewOpener() *Opener { return &Opener{client: awshttp.NewBuildableClient()} }

// Open returns the place that the attributes name. With write set, what is found there is touched, so that rules for old objects spare
// it.
func (o *Opener) Open(ctx context.Context, attrs map[string]string, write bool) (*objects.Place, error) {
	c, err := parse(attrs)
	if err != nil {
		return nil, err
	}
	s, err := newStore(ctx, c, o.client, write)
	if err != nil {
		return nil, err
	}
	where := c.bucket + "/" + c.prefix
	return objects.New(objects.Options{
		Store: s, Read: c.names, Write: c.names, Title: "s3://" + where,
		Location: remotecache.NewLocation("s3", hostOf(c.endpoint)+"/"+where+c.blobs),
	}), nil
}

// hostOf is an endpoint without what may be secret in it.
func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

type store struct {
	config
	client  *s3.Client
	uploads *transfermanager.Client
	slots   chan struct{} // of uploads
	write   bool
}

var _ objects.Store = (*store)(nil)

func newStore(ctx context.Context, c config, via *awshttp.BuildableClient, write bool) (*store, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithRegion(c.region), awsconfig.WithHTTPClient(via), awsconfig.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired))
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.keyID != "" && c.secret != "" {
			o.Credentials = credentials.NewStaticCredentialsProvider(c.keyID, c.secret, c.token)
		}
		if c.endpoint != "" {
			o.UsePathStyle = c.pathStyle
			o.BaseEndpoint = aws.String(c.endpoint)
		}
		if c.retryMode != "" {
			o.RetryMode = c.retryMode
		}
		if c.retryAttempts > 0 {
			o.RetryMaxAttempts = c.retryAttempts
		}
		if c.disableAcceptEncoding {
			// Google's front end changes this header after it was signed.
			o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
				_, err := stack.Finalize.Remove("DisableAcceptEncodingGzip")
				return err
			})
		}
	})
	uploads := transfermanager.New(client, func(o *transfermanager.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	return &store{config: c, client: client, uploads: uploads, slots: make(chan struct{}, c.parallel), write: write}, nil
}

func (s *store) blob(d digest.Digest) *string  { return aws.String(s.prefix + s.blobs + d.String()) }
func (s *store) named(name string) *string     { return aws.String(s.prefix + s.manifests + name) }
func (s *store) copySource(key *string) string { return url.PathEscape(s.bucket + "/" + *key) }

// Has implements [objects.Store].
func (s *store) Has(ctx context.Context, d digest.Digest) (bool, error) {
	key := s.blob(d)
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: key})
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.write && objects.Stale(head.LastModified, s.touch) && aws.ToInt64(head.ContentLength) < maxCopy {
		return true, s.refresh(ctx, key)
	}
	return true, nil
}

// refresh makes an object new by copying it onto itself. One that is too large for that is left to its age.
func (s *store) refresh(ctx context.Context, key *string) error {
	_, err := s.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &s.bucket, Key: key, CopySource: aws.String(s.copySource(key)),
		Metadata: map[string]string{"updated-at": time.Now().UTC().Format(time.RFC3339)}, MetadataDirective: types.MetadataDirectiveReplace,
	})
	if err != nil {
		return fmt.Errorf("failed to touch file: %w", err)
	}
	return nil
}

// Open implements [objects.Store].
func (s *store) Open(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return s.get(ctx, s.blob(d))
}

// Config implements [objects.Store].
func (s *store) Config(ctx context.Context, name string) (io.ReadCloser, error) {
	return s.get(ctx, s.named(name))
}

func (s *store) get(ctx context.Context, key *string) (io.ReadCloser, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: key})
	if missing(err) {
		return nil, fmt.Errorf("object %s: %w", *key, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}

// Put implements [objects.Store].
func (s *store) Put(ctx context.Context, d digest.Digest, r io.ReaderAt, size int64) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Only to be read from the beginning to the end: what is behind it can do no more.
	return s.put(ctx, s.blob(d), struct{ io.Reader }{io.NewSectionReader(r, 0, size)})
}

// PutConfig implements [objects.Store].
func (s *store) PutConfig(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, s.named(name), bytes.NewReader(data))
}

func (s *store) put(ctx context.Context, key *string, r io.Reader) error {
	_, err := s.uploads.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &s.bucket, Key: key, Body: r})
	return err
}

// missing tells whether err says that an object is not there.
func missing(err error) bool {
	var head *types.NotFound
	var get *types.NoSuchKey
	var resp *awshttp.ResponseError
	return errors.As(err, &head) || errors.As(err, &get) || errors.As(err, &resp) && resp.HTTPStatusCode() == http.StatusNotFound
}

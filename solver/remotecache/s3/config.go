package s3

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// config are the attributes of a cache in S3, with the names and defaults of BuildKit's.
type config struct {
	bucket, region        string
	prefix                string
	manifests, blobs      string
	names                 []string
	touch                 time.Duration
	endpoint              string
	keyID, secret, token  string
	pathStyle             bool
	parallel              int
	disableAcceptEncoding bool
	retryMode             aws.RetryMode
	retryAttempts         int
}

func parse(attrs map[string]string) (c config, err error) {
	c = config{
		prefix: attrs["prefix"], manifests: "manifests/", blobs: "blobs/", names: []string{"buildkit"}, touch: 24 * time.Hour,
		endpoint: attrs["endpoint_url"], keyID: attrs["access_key_id"], secret: attrs["secret_access_key"], token: attrs["session_token"],
		parallel: 4,
	}
	var ok bool
	if c.bucket, ok = attrOrEnv(attrs, "bucket", "AWS_BUCKET"); !ok {
		return c, errors.New("bucket ($AWS_BUCKET) not set for s3 cache")
	}
	if c.region, ok = attrOrEnv(attrs, "region", "AWS_REGION"); !ok {
		return c, errors.New("region ($AWS_REGION) not set for s3 cache")
	}
	if v, ok := attrs["manifests_prefix"]; ok {
		c.manifests = v
	}
	if v, ok := attrs["blobs_prefix"]; ok {
		c.blobs = v
	}
	if v, ok := attrs["name"]; ok {
		c.names = strings.Split(v, ";")
	}
	// As ever, values of these that make no sense are the default.
	if d, err := time.ParseDuration(attrs["touch_refresh"]); err == nil {
		c.touch = d
	}
	c.pathStyle, _ = strconv.ParseBool(attrs["use_path_style"])
	c.disableAcceptEncoding, _ = strconv.ParseBool(attrs["disable_accept_encoding"])
	if c.parallel, err = positive(attrs, "upload_parallelism", c.parallel); err != nil {
		return c, err
	}
	if c.retryAttempts, err = positive(attrs, "retry_max_attempts", 0); err != nil {
		return c, err
	}
	switch v, ok := attrs["retry_mode"]; {
	case !ok:
	case v == "standard" || v == "adaptive":
		c.retryMode = aws.RetryMode(v)
	default:
		return c, errors.New(`retry_mode must be "standard" or "adaptive"`)
	}
	return c, nil
}

func attrOrEnv(attrs map[string]string, attr, variable string) (string, bool) {
	if v, ok := attrs[attr]; ok {
		return v, true
	}
	return os.LookupEnv(variable)
}

func positive(attrs map[string]string, key string, fallback int) (int, error) {
	v, ok := attrs[key]
	if !ok {
		return fallback, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s must be a positive integer", key)
	}
	return n, nil
}

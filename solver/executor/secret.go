package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// secrets holds the values of a step between asking for them and starting it.
type secrets struct {
	files map[*mount][]byte
	env   []string
}

// askSecrets asks for every secret of a step, before anything is held that others could wait for. Mounts whose optional secret
// nobody has become absent.
func askSecrets(ctx context.Context, svc Services, mounts []*mount, envs []SecretEnv) (*secrets, error) {
	s := &secrets{files: map[*mount][]byte{}}
	for _, m := range mounts {
		if m.Type != MountSecret {
			continue
		}
		value, ok, err := askSecret(ctx, svc, m.ID, m.Optional)
		if err != nil {
			return nil, err
		}
		m.absent = !ok
		s.files[m] = value
	}
	for _, e := range envs {
		value, ok, err := askSecret(ctx, svc, e.ID, e.Optional)
		if err != nil {
			return nil, err
		}
		if ok {
			s.env = append(s.env, e.Name+"="+string(value))
		}
	}
	return s, nil
}

func askSecret(ctx context.Context, svc Services, id string, optional bool) (value []byte, ok bool, err error) {
	err = ErrNoSecret
	if svc != nil {
		value, err = svc.Secret(ctx, id)
	}
	switch {
	case err == nil:
		return value, true, nil
	case errors.Is(err, ErrNoSecret) && optional:
		return nil, false, nil
	case errors.Is(err, ErrNoSecret):
		return nil, false, &MissingSecretError{ID: id}
	default:
		return nil, false, fmt.Errorf("secret %s: %w", id, err)
	}
}

// vault is a tmpfs that holds the secrets and sockets of one step, for as long as it runs.
type vault struct {
	dir string
	n   int
}

// vaultSize is enough for the secrets of any build, in bytes: the kernel holds them in memory that nothing else can have.
const vaultSize = 64 << 20

// openVault mounts a vault on dir, which must not exist. noswap keeps values off the disk where the kernel has it.
func openVault(dir string) (*vault, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	options := "mode=0700,size=" + strconv.Itoa(vaultSize)
	err := unix.Mount("slipway", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("slipway", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount tmpfs for secrets: %w", err), os.Remove(dir))
	}
	return &vault{dir: dir}, nil
}

// name is a new path in the vault.
func (v *vault) name() string {
	v.n++
	return filepath.Join(v.dir, strconv.Itoa(v.n))
}

// put stores a value with the owner and mode of its mount and returns where.
func (v *vault) put(value []byte, mode, uid, gid uint32) (string, error) {
	name := v.name()
	if err := os.WriteFile(name, value, 0o600); err != nil {
		return "", fmt.Errorf("store secret: %w", err)
	}
	return name, own(name, mode, uid, gid)
}

func own(name string, mode, uid, gid uint32) error {
	if err := os.Lchown(name, int(uid), int(gid)); err != nil {
		return err
	}
	return unix.Chmod(name, mode&0o7777)
}

// close ends the vault and everything in it.
func (v *vault) close() error {
	if err := unix.Unmount(v.dir, unix.UMOUNT_NOFOLLOW); err != nil {
		// A value must not outlive its step because someone still looks at it.
		if err := unix.Unmount(v.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount secrets: %w", err)
		}
	}
	return os.Remove(v.dir)
}

package ops

import (
	"context"
	"fmt"
	"strconv"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Key names what each action does. Of a copy's source only the name counts here where its content is digested: the same file
// from another directory is the same copy.
func (o *fileOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	parts := solver.Parts{{Name: "op", Value: "file"}}
	for k, a := range o.actions {
		prefix := "action." + strconv.Itoa(k)
		add := func(name, value string) {
			parts = append(parts, solver.Part{Name: prefix + name, Value: value})
		}
		add("", fmt.Sprintf("%s input=%d secondary=%d output=%d", actionName(a), a.Input, a.SecondaryInput, a.Output))
		switch x := a.Action.(type) {
		case *pb.FileAction_Copy:
			o.copyParts(a, x.Copy, add)
		case *pb.FileAction_Mkdir:
			add(".path", x.Mkdir.Path)
			add(".mode", octal(x.Mkdir.Mode))
			add(".parents", strconv.FormatBool(x.Mkdir.MakeParents))
			add(".time", strconv.FormatInt(x.Mkdir.Timestamp, 10))
		case *pb.FileAction_Mkfile:
			add(".path", x.Mkfile.Path)
			add(".mode", octal(x.Mkfile.Mode))
			add(".data", digest.FromBytes(x.Mkfile.Data).String())
			add(".time", strconv.FormatInt(x.Mkfile.Timestamp, 10))
		case *pb.FileAction_Symlink:
			add(".path", x.Symlink.Newpath)
			add(".target", x.Symlink.Oldpath)
			add(".time", strconv.FormatInt(x.Symlink.Timestamp, 10))
		case *pb.FileAction_Rm:
			add(".path", x.Rm.Path)
			add(".options", fmt.Sprintf("wildcard=%t allowNotFound=%t", x.Rm.AllowWildcard, x.Rm.AllowNotFound))
		}
		if owner := ownerOf(a); owner != nil {
			add(".owner", userName(owner.User)+":"+userName(owner.Group))
		}
	}
	return parts, nil
}

func (o *fileOp) copyParts(a *pb.FileAction, c *pb.FileActionCopy, add func(name, value string)) {
	src := c.Src
	if a.SecondaryInput >= 0 && a.SecondaryInput < int64(o.inputs) && o.Selector(int(a.SecondaryInput)) != nil {
		src = srcName(src)
	}
	add(".src", src)
	add(".dest", c.Dest)
	add(".mode", octal(c.Mode)+" "+c.ModeStr)
	add(".time", strconv.FormatInt(c.Timestamp, 10))
	add(".options", fmt.Sprintf("follow=%t contents=%t unpack=%t createDest=%t wildcard=%t allowEmpty=%t replace=%t",
		c.FollowSymlink, c.DirCopyContents, c.AttemptUnpackDockerCompatibility, c.CreateDestPath, c.AllowWildcard,
		c.AllowEmptyWildcard, c.AlwaysReplaceExistingDestPaths))
	for i, p := range c.IncludePatterns {
		add(".include."+strconv.Itoa(i), p)
	}
	for i, p := range c.ExcludePatterns {
		add(".exclude."+strconv.Itoa(i), p)
	}
	for i, p := range c.RequiredPaths {
		add(".required."+strconv.Itoa(i), p)
	}
}

func actionName(a *pb.FileAction) string {
	switch a.Action.(type) {
	case *pb.FileAction_Copy:
		return "copy"
	case *pb.FileAction_Mkdir:
		return "mkdir"
	case *pb.FileAction_Mkfile:
		return "mkfile"
	case *pb.FileAction_Symlink:
		return "symlink"
	case *pb.FileAction_Rm:
		return "rm"
	}
	return "unknown"
}

// octal writes a mode as people do; -1 means that the mode is left alone.
func octal(mode int32) string {
	if mode < 0 {
		return "keep"
	}
	return fmt.Sprintf("%04o", mode)
}

func userName(u *pb.UserOpt) string {
	switch x := u.GetUser().(type) {
	case *pb.UserOpt_ByName:
		return fmt.Sprintf("%q in input %d", x.ByName.GetName(), x.ByName.GetInput())
	case *pb.UserOpt_ByID:
		return strconv.FormatUint(uint64(x.ByID), 10)
	}
	return ""
}

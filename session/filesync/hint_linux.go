package filesync

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

// settle is how old a change must be before its time can tell it from the next one: file systems stamp with steps of up to two
// seconds.
const settle = 2 * time.Second

// hintOf names the state of a file: device, inode, change time. "" when it was changed so lately that it could change again
// without the name changing.
func hintOf(st *syscall.Stat_t, now time.Time) string {
	ctime := time.Unix(st.Ctim.Unix())
	if now.Sub(ctime) < settle {
		return ""
	}
	b := make([]byte, 0, 48)
	b = strconv.AppendUint(b, st.Dev, 16)
	b = append(b, ':')
	b = strconv.AppendUint(b, st.Ino, 16)
	b = append(b, ':')
	b = strconv.AppendInt(b, ctime.UnixNano(), 16)
	return string(b)
}

// changed returns the time of a file's last change, of its contents or of what is said of it.
func changed(fi os.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return fi.ModTime()
}

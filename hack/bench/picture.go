package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// picture draws a bar for each line: how long it is compared with BuildKit's, which is 1, and a mark where it is to end.
func picture(lines []line) []byte {
	const (
		height, left, scale = 18, 520, 360 // of a line; of the names; of BuildKit's bar
		longest             = 1.25         // a longer bar is cut off
	)
	var rows bytes.Buffer
	y := 40
	for _, l := range lines {
		if l.theirs == 0 {
			continue
		}
		part := l.ours / l.theirs
		colour := "#2e7d32"
		if !l.holds() {
			colour = "#b45309"
		}
		name := strings.ReplaceAll(l.what, "`", "") + " (" + client(l.Side) + ")"
		fmt.Fprintf(&rows, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+12, html.EscapeString(name))
		fmt.Fprintf(&rows, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y+2, min(part, longest)*scale, height-5, colour)
		if l.mark > 0 && l.mark/l.theirs <= longest {
			x := left + l.mark/l.theirs*scale
			fmt.Fprintf(&rows, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#111" stroke-width="2"/>`, x, x, y, y+height-1)
		}
		fmt.Fprintf(&rows, `<text x="%.1f" y="%d">%.2f</text>`, left+min(part, longest)*scale+6, y+12, part)
		rows.WriteByte('\n')
		y += height
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+int(longest*scale)+60, y+12)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="20">Slipway as a part of BuildKit (1, the grey line); shorter is better; the black marks are the aims</text>`+"\n", 8)
	fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="30" y2="%d" stroke="#bbb"/>`+"\n", left+scale, left+scale, y)
	b.Write(rows.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

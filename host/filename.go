package host

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFileName bounds a file's path in a plugin, in bytes.
const maxFileName = 255

// fileName says what is wrong with a file's path in a plugin: it must stay below the plugin's directory on every system, so
// it has slashes only, no drive, no "..", and nothing that one system reads otherwise than another.
func fileName(name string) error {
	switch {
	case name == "":
		return errors.New("the file name is missing")
	case len(name) > maxFileName:
		return fmt.Errorf("file name %s is longer than %d bytes", quote(name), maxFileName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("file name %s has characters that cannot be shown", quote(name))
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("file name %s is absolute", quote(name))
	case strings.ContainsAny(name, `\:*?"<>|`):
		return fmt.Errorf("file name %s has one of \\ : * ? \" < > |", quote(name))
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("file name %s must have no parts that are empty, . or .. in it", quote(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") || strings.HasPrefix(part, " ") || device(part) {
			return fmt.Errorf("file name %s is not the same on every system", quote(name))
		}
	}
	return nil
}

// device reports whether Windows takes a name for a device, whatever its ending.
func device(name string) bool {
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	return len(base) == 4 && (strings.HasPrefix(base, "COM") || strings.HasPrefix(base, "LPT")) && base[3] >= '0' && base[3] <= '9'
}

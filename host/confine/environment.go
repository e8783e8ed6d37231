package confine

import (
	"fmt"
	"slices"
	"strings"
)

// strangers lists the names in the environment, given as NAME=VALUE, that none of the patterns allows. Values are not told.
func strangers(environ, allowed []string) []string {
	var found []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(allowed, func(pattern string) bool {
			prefix, open := strings.CutSuffix(pattern, "*")
			return name == pattern || open && strings.HasPrefix(name, prefix)
		}) {
			found = append(found, name)
		}
	}
	return found
}

// ownProcess says whether the process has nothing from its parent but what was meant for it.
func ownProcess(environ, allowed []string, descriptors error) (holds bool, detail string) {
	switch names := strangers(environ, allowed); {
	case len(names) > 0:
		return false, fmt.Sprintf("the environment has %s", strings.Join(names, ", "))
	case descriptors != nil:
		return false, descriptors.Error()
	}
	return true, ""
}

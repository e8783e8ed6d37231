package monitor

import "strings"

// Nearest returns the known name that was probably meant by name, for a remedy such as "did you mean interval?", and "" when
// none is near. One is near when at most two letters, and fewer than either name has, have to be put in, taken out or changed
// to make the one of the other (Levenshtein's distance, in bytes); the case of letters does not count. Of several the
// nearest is taken, and of those the first. The name may be of any length: what it costs grows with the known ones.
func Nearest(name string, known []string) string {
	name = strings.ToLower(name)
	best, least := "", 3
	for _, k := range known {
		if len(k) > len(name)+2 || len(name) > len(k)+2 {
			continue
		}
		if d := edits(name, strings.ToLower(k)); d < min(least, len(name), len(k)) {
			best, least = k, d
		}
	}
	return best
}

// edits is Levenshtein's distance of two texts in bytes, with the one row of Wagner's and Fischer's table that is needed.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal, row[j+1] = row[j+1], min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

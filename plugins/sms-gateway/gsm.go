package main

import (
	"sort"
	"strings"
	"unicode/utf16"
)

// A text message is sent in the 7 bits of the GSM alphabet, or, when one of its characters is not in there, in the 16 bits of
// UTF-16 (3GPP TS 23.038). A message alone has room for 160 or 70 of them. What is longer is sent in parts, each with a
// header that leaves room for 153 or 67 (3GPP TS 23.040, 9.2.3.24.1).

// basic and extended are the GSM alphabet (3GPP TS 23.038, 6.2.1 and 6.2.1.1). The latter count twice: an escape goes first.
const (
	basic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	extended = "\f^{}\\[~]|€"
)

// alphabet is a way to write a message.
type alphabet struct {
	alone, part int              // units in a message, and in each of several parts
	units       func(c rune) int // of a character; 0: it cannot be written
}

func gsm7() alphabet {
	return alphabet{160, 153, func(c rune) int {
		switch {
		case c >= 'a' && c <= 'z' || c == ' ' || c >= '0' && c <= '9': // most of most texts
			return 1
		case strings.ContainsRune(basic, c):
			return 1
		case strings.ContainsRune(extended, c):
			return 2
		}
		return 0
	}}
}

func ucs2() alphabet { return alphabet{70, 67, func(c rune) int { return utf16.RuneLen(c) }} }

// parts counts the parts that a text takes. It is 0 for a text that cannot be written in the alphabet. No character is
// divided between two parts.
func (a alphabet) parts(text []rune) int {
	total, count, used := 0, 1, 0
	for _, c := range text {
		n := a.units(c)
		if n <= 0 {
			return 0
		}
		total += n
		if used += n; used > a.part {
			count, used = count+1, n
		}
	}
	if total <= a.alone {
		return 1
	}
	return count
}

// ellipsis marks a cut, in characters that both alphabets have.
const ellipsis = "..."

// wordLength is how many characters a cut may give up to end behind a word.
const wordLength = 20

// fits reports whether text, and what follows it, can be written in so many parts.
func (a alphabet) fits(parts int, text []rune, follows string) bool {
	n := a.parts(append(append(make([]rune, 0, len(text)+len(follows)), text...), []rune(follows)...))
	return n > 0 && n <= parts
}

// cut shortens a text until it fits into the given number of parts, and marks that it did. It reports false when a character
// that the alphabet does not have is in the way.
func (a alphabet) cut(text []rune, parts int) (string, bool) {
	if most := a.alone * parts; len(text) > most {
		text = text[:most+1] // which is too long still
	}
	if a.fits(parts, text, "") {
		return string(text), true
	}
	n := sort.Search(len(text), func(n int) bool { return !a.fits(parts, text[:n+1], ellipsis) })
	if n < len(text) && a.units(text[n]) <= 0 && a.fits(parts, text[:n], "x"+ellipsis) {
		return "", false
	}
	end := n
	for end > 0 && n-end < wordLength && text[end] != ' ' && text[end] != '\n' {
		end--
	}
	if end == 0 || n-end == wordLength {
		end = n
	}
	return strings.TrimRight(string(text[:end]), " \n") + ellipsis, true
}

// fit makes a text that goes into the given number of parts. Typographic characters become plain ones, since a single one of
// them would more than halve the room; other characters that GSM does not have stay, and take it.
func fit(text string, parts int) string {
	text = plain().Replace(strings.ToValidUTF8(text, "?"))
	text = strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' || c == 0x7f {
			return -1
		}
		return c
	}, text)
	runes := []rune(strings.TrimSpace(text))
	if cut, ok := gsm7().cut(runes, parts); ok {
		return cut
	}
	cut, _ := ucs2().cut(runes, parts) // which has every character
	return cut
}

// plain writes typographic characters with those of GSM.
func plain() *strings.Replacer {
	return strings.NewReplacer(
		"\r\n", "\n", "\r", "\n", "\t", " ", "\u00a0", " ", "\u202f", " ", "\u2009", " ", "\u200b", "", "\ufeff", "",
		"…", "...", "–", "-", "—", "-", "−", "-", "‐", "-", "‑", "-", "“", `"`, "”", `"`, "„", `"`, "«", `"`, "»", `"`,
		"‘", "'", "’", "'", "‚", "'", "`", "'", "´", "'", "•", "*", "·", "*", "→", "->", "←", "<-", "×", "x", "≤", "<=", "≥", ">=",
		"≠", "!=", "µ", "u", "μ", "u", "°", " deg",
	)
}

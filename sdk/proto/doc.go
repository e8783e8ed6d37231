// Package proto is the wire contract between the server and plugins that are processes, generated from plugin.proto.
package proto

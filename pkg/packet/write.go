package packet

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Record is a frame in a file.
type Record struct {
	Time      time.Time
	Interface string // that it came in by; empty: not known
	Length    int    // of the whole frame; 0: Data is all of it
	Data      []byte // its beginning, from the Ethernet header on
	Comment   string // for who reads the file; empty: none
}

// Kinds of blocks and options in a pcapng file, as the IETF draft "PCAP Now Generic" has them.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6
	blockSimple    = 3

	magicSection     = 0x1a2b3c4d
	optionComment    = 1
	optionProgram    = 4 // of a section
	optionName       = 2 // of an interface
	optionResolution = 9 // of an interface's times: 9 is nanoseconds
	linkEthernet     = 1
	longestComment   = 32 << 10
)

// Writer writes a pcapng file, which Wireshark and tcpdump read. Each record is flushed, so that a reader of a pipe sees it at
// once.
type Writer struct {
	to         *bufio.Writer
	interfaces map[string]uint32
}

// NewWriter begins a file. program is who wrote it.
func NewWriter(to io.Writer, program string) (*Writer, error) {
	w := &Writer{to: bufio.NewWriter(to), interfaces: map[string]uint32{}}
	body := binary.LittleEndian.AppendUint32(nil, magicSection)
	body = append(body, 1, 0, 0, 0)                                     // version 1.0
	body = append(body, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // of unknown length
	body = endOptions(appendOption(body, optionProgram, []byte(program)))
	return w, w.write(blockSection, body)
}

// Write adds a record.
func (w *Writer) Write(r Record) error {
	id, known := w.interfaces[r.Interface]
	if !known {
		id = uint32(len(w.interfaces))
		w.interfaces[r.Interface] = id
		body := []byte{linkEthernet, 0, 0, 0, 0, 0, 0, 0}
		if r.Interface != "" {
			body = appendOption(body, optionName, []byte(r.Interface))
		}
		if err := w.write(blockInterface, endOptions(appendOption(body, optionResolution, []byte{9}))); err != nil {
			return err
		}
	}
	at := uint64(r.Time.UnixNano())
	body := binary.LittleEndian.AppendUint32(nil, id)
	body = binary.LittleEndian.AppendUint32(body, uint32(at>>32))
	body = binary.LittleEndian.AppendUint32(body, uint32(at))
	body = binary.LittleEndian.AppendUint32(body, uint32(len(r.Data)))
	body = binary.LittleEndian.AppendUint32(body, uint32(max(r.Length, len(r.Data))))
	body = padded(append(body, r.Data...))
	if r.Comment != "" {
		body = endOptions(appendOption(body, optionComment, []byte(r.Comment[:min(len(r.Comment), longestComment)])))
	}
	return w.write(blockPacket, body)
}

func (w *Writer) write(kind uint32, body []byte) error {
	length := uint32(12 + len(body))
	block := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, kind), length)
	block = binary.LittleEndian.AppendUint32(append(block, body...), length)
	if _, err := w.to.Write(block); err != nil {
		return fmt.Errorf("write packets: %w", err)
	}
	if err := w.to.Flush(); err != nil {
		return fmt.Errorf("write packets: %w", err)
	}
	return nil
}

func appendOption(body []byte, code uint16, value []byte) []byte {
	body = binary.LittleEndian.AppendUint16(body, code)
	body = binary.LittleEndian.AppendUint16(body, uint16(len(value)))
	return padded(append(body, value...))
}

func endOptions(body []byte) []byte { return append(body, 0, 0, 0, 0) }

// padded ends at a multiple of 4 bytes. What stands before options and data does.
func padded(body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	return body
}

package packet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The first word of a pcap file, in the byte order of the box that wrote it.
const (
	magicMicroseconds = 0xa1b2c3d4
	magicNanoseconds  = 0xa1b23c4d
	longestBlock      = 1 << 20
)

// Reader reads a pcap or pcapng file.
type Reader struct {
	from  *bufio.Reader
	order binary.ByteOrder
	next  func() (Record, error)

	unit       time.Duration // pcap: of the fractions of seconds
	interfaces []source      // pcapng
}

// source is an interface of a pcapng file.
type source struct {
	name string
	unit uint64 // so many in a second
}

// NewReader begins to read a file. One whose frames are not Ethernet's is refused.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: bufio.NewReader(from)}
	start, err := r.from.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("read packets: it is no pcap or pcapng file: %w", unexpected(err))
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(start) {
		case magicMicroseconds:
			r.order, r.unit = order, time.Microsecond
		case magicNanoseconds:
			r.order, r.unit = order, time.Nanosecond
		}
	}
	switch {
	case r.order != nil:
		return r, r.begin()
	case binary.LittleEndian.Uint32(start) == blockSection:
		r.next = r.block
		return r, nil
	}
	return nil, fmt.Errorf("read packets: it is no pcap or pcapng file: it begins with % x", start)
}

// Next returns the next record; io.EOF after the last one.
func (r *Reader) Next() (Record, error) {
	record, err := r.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return record, fmt.Errorf("read packets: %w", err)
	}
	return record, err
}

// begin reads the header of a pcap file.
func (r *Reader) begin() error {
	header := make([]byte, 24)
	if _, err := io.ReadFull(r.from, header); err != nil {
		return fmt.Errorf("read packets: %w", unexpected(err))
	}
	r.next = r.packet
	return checkLink(r.order.Uint32(header[20:]) & 0x0fffffff) // above are bits about checksums
}

func checkLink(link uint32) error {
	if link != linkEthernet {
		return fmt.Errorf("its frames are not Ethernet's (link type %d): capture on the interface itself, not on any", link)
	}
	return nil
}

// packet reads one record of a pcap file.
func (r *Reader) packet() (Record, error) {
	header := make([]byte, 16)
	if _, err := io.ReadFull(r.from, header); err != nil {
		return Record{}, err
	}
	captured := r.order.Uint32(header[8:])
	if captured > longestBlock {
		return Record{}, fmt.Errorf("a frame of %d bytes can't be", captured)
	}
	data := make([]byte, captured)
	if _, err := io.ReadFull(r.from, data); err != nil {
		return Record{}, unexpected(err)
	}
	at := time.Unix(int64(r.order.Uint32(header)), int64(r.order.Uint32(header[4:]))*int64(r.unit))
	return Record{Time: at, Length: int(r.order.Uint32(header[12:])), Data: data}, nil
}

// block reads blocks of a pcapng file up to the next one with a frame.
func (r *Reader) block() (Record, error) {
	for {
		kind, body, err := r.readBlock()
		if err != nil {
			return Record{}, err
		}
		switch kind {
		case blockInterface:
			err = r.addInterface(body)
		case blockPacket:
			return r.enhanced(body)
		case blockSimple:
			return r.simple(body)
		}
		if err != nil {
			return Record{}, err
		}
	}
}

func (r *Reader) readBlock() (kind uint32, body []byte, err error) {
	start := make([]byte, 8)
	if _, err := io.ReadFull(r.from, start); err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(start) == blockSection { // the same in both orders; what follows says which one it is
		magic, err := r.from.Peek(4)
		if err != nil {
			return 0, nil, unexpected(err)
		}
		r.order = binary.LittleEndian
		if binary.BigEndian.Uint32(magic) == magicSection {
			r.order = binary.BigEndian
		}
		r.interfaces = nil
	}
	kind, length := r.order.Uint32(start), r.order.Uint32(start[4:])
	if length < 12 || length%4 != 0 || length > longestBlock {
		return 0, nil, fmt.Errorf("a block of %d bytes can't be", length)
	}
	body = make([]byte, length-8)
	if _, err := io.ReadFull(r.from, body); err != nil {
		return 0, nil, unexpected(err)
	}
	return kind, body[:len(body)-4], nil // behind it is the length once more
}

func (r *Reader) addInterface(body []byte) error {
	if len(body) < 8 {
		return io.ErrUnexpectedEOF
	}
	from := source{unit: 1_000_000}
	for options := body[8:]; len(options) >= 4; {
		code, length := r.order.Uint16(options), int(r.order.Uint16(options[2:]))
		options = options[4:]
		if code == 0 || length > len(options) {
			break
		}
		switch value := options[:length]; {
		case code == optionName:
			from.name = string(value)
		case code == optionResolution && length == 1:
			from.unit = resolution(value[0])
		}
		options = options[min((length+3)/4*4, len(options)):]
	}
	r.interfaces = append(r.interfaces, from)
	return checkLink(uint32(r.order.Uint16(body)))
}

// resolution is how many units of time make a second: a power of 10, or of 2.
func resolution(code byte) uint64 {
	base, unit := uint64(10), uint64(1)
	if code&0x80 != 0 {
		base = 2
	}
	for range min(code&0x7f, 18) {
		unit *= base
	}
	return unit
}

func (r *Reader) enhanced(body []byte) (Record, error) {
	if len(body) < 20 {
		return Record{}, io.ErrUnexpectedEOF
	}
	id, captured := r.order.Uint32(body), r.order.Uint32(body[12:])
	if int64(captured) > int64(len(body)-20) || int64(id) >= int64(len(r.interfaces)) {
		return Record{}, errors.New("a frame is longer than its block, or of an unknown interface")
	}
	from := r.interfaces[id]
	at := uint64(r.order.Uint32(body[4:]))<<32 | uint64(r.order.Uint32(body[8:]))
	return Record{
		Time:      time.Unix(int64(at/from.unit), int64(float64(at%from.unit)*1e9/float64(from.unit))),
		Interface: from.name,
		Length:    int(r.order.Uint32(body[16:])),
		Data:      body[20 : 20+captured],
	}, nil
}

// simple reads a frame without time and interface.
func (r *Reader) simple(body []byte) (Record, error) {
	if len(body) < 4 {
		return Record{}, io.ErrUnexpectedEOF
	}
	length := int(r.order.Uint32(body))
	return Record{Length: length, Data: body[4:][:min(length, len(body)-4)]}, nil
}

// unexpected is the error of a file that ends too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

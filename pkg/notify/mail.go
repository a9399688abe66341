package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// The values of Mail.TLS.
const (
	StartTLS = "starttls" // demanded
	TLS      = "tls"      // from the first byte
	NoTLS    = "none"
)

// Mail is told by mail: all events of a while in one.
type Mail struct {
	Host         string
	Port         uint16
	TLS          string // one of the constants
	Username     string // empty: no authentication
	PasswordFile string // read for each mail
	From         string
	To           []string
	Interval     time.Duration // between two mails
}

// An event is mailed when no other one has come for quiet, but not later than so long after the first.
const (
	quiet   = 2 * time.Second
	longest = 10 * time.Second
)

// due is when the next mail is to be sent.
func (m *Mail) due(q *queue) time.Time {
	at := q.newest.Add(quiet)
	if last := q.first.Add(longest); last.Before(at) {
		at = last
	}
	if next := q.mailed.Add(m.Interval); !q.mailed.IsZero() && next.After(at) {
		at = next
	}
	return at
}

func (m *Mail) send(ctx context.Context, list []Message) (string, error) {
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := message.From(m.From); err != nil {
		return "", finalError{fmt.Errorf("from: %w", err)}
	}
	if err := message.To(m.To...); err != nil {
		return "", finalError{fmt.Errorf("to: %w", err)}
	}
	message.Subject(subjectLine(list))
	message.SetDate()
	message.SetMessageID()
	message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's absence is answered to it
	message.SetBodyString(mail.TypeTextPlain, body(list))

	dialer := &line{ctx: ctx, mail: m}
	defer dialer.hangUp()
	options := []mail.Option{mail.WithPort(int(m.Port)), mail.WithDialContextFunc(dialer.dial), mail.WithTimeout(time.Hour)} // ctx ends first
	switch m.TLS {
	case StartTLS:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	default:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if m.Username != "" {
		password, err := secret(m.PasswordFile)
		if err != nil {
			return "", err
		}
		// In this order; all of them are for encrypted connections only here.
		options = append(options, mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin, mail.SMTPAuthCramMD5),
			mail.WithUsername(m.Username), mail.WithPassword(password))
	}
	client, err := mail.NewClient(m.Host, options...)
	if err != nil {
		return "", finalError{fmt.Errorf("mail: %w", err)}
	}
	if err := client.DialAndSendWithContext(ctx, message); err != nil {
		return "", m.explain(ctx, err)
	}
	return fmt.Sprintf("%s took the mail to %s", m.Host, strings.Join(m.To, ", ")), nil
}

func (m *Mail) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s:%d does not answer in time", m.Host, m.Port)
	}
	told := errors.New(oneLine(err.Error(), maxAnswer))
	if refused, ok := errors.AsType[*mail.SendError](err); ok && !refused.IsTemp() && refused.ErrorCode() >= 500 {
		return finalError{told}
	}
	return told
}

// line is the connection of one mail. The library would leave it open after some errors, and knows limits of steps only.
type line struct {
	ctx  context.Context // of the whole mail
	mail *Mail
	conn net.Conn
	stop func() bool
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.conn, l.stop = conn, context.AfterFunc(l.ctx, func() { conn.Close() })
	if l.mail.TLS != TLS {
		return l.conn, nil
	}
	secured := tls.Client(conn, &tls.Config{ServerName: l.mail.Host, MinVersion: tls.VersionTLS12})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secured, nil
}

func (l *line) hangUp() {
	if l.conn != nil {
		l.stop()
		l.conn.Close()
	}
}

// maxSubject is the length of a subject in bytes, so that a list of mails can be read.
const maxSubject = 150

func subjectLine(list []Message) string {
	worst := list[0]
	for _, m := range list {
		if severity(m.Level) > severity(worst.Level) {
			worst = m
		}
	}
	if len(list) == 1 {
		return oneLine(fmt.Sprintf("[%s] %s", worst.RouterID, worst.Text), maxSubject)
	}
	return oneLine(fmt.Sprintf("[%s] %d events: %s", worst.RouterID, len(list), worst.Text), maxSubject)
}

func body(list []Message) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "%s %-7s %s\n", m.Time.UTC().Format("2006-01-02T15:04:05.000Z"), m.Level, oneLine(m.Text, 2000))
	}
	fmt.Fprintf(&b, "\n-- \nxdirector on %s; see xdirector status\n", list[0].RouterID)
	return b.String()
}

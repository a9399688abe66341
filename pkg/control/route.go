package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// route is one thing that the socket offers. The answers to wrong requests and openapi.json are made of the routes.
type route struct {
	method, path string // as in OpenAPI: /v1/failover/{instance}
	summary      string
	query        []parameter
	request      reflect.Type // of the JSON body; nil: none
	answer       reflect.Type // likewise
	media        string       // of the answer; empty: application/json
	limit        int64        // bytes of the body; 0: the usual one
	handle       http.HandlerFunc
	answers      func(*api, route) http.HandlerFunc // makes handle
}

// parameter is one of a query.
type parameter struct {
	name, text string
	kind       reflect.Type
}

// nothing is the body of a request, or of an answer, that says nothing.
type nothing struct{}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"` // for an operator: what is wrong, and what to do
}

// wrong is a mistake in a request.
type wrong struct{ error }

// starting is the answer of a director that has no picture yet.
type starting struct{}

func (starting) Error() string {
	return "no status yet: the director is starting, ask again in a second"
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// exchange makes a route that reads a JSON body, unless Q is nothing, and answers with another one.
func exchange[Q, A any](method, path, summary string, do func(*http.Request, Q) (A, error)) route {
	r := route{method: method, path: path, summary: summary, answer: typeOf[A]()}
	if typeOf[Q]() != typeOf[nothing]() {
		r.request = typeOf[Q]()
	}
	r.answers = func(a *api, r route) http.HandlerFunc {
		return func(w http.ResponseWriter, request *http.Request) {
			limit := a.lim.body
			if r.limit > 0 {
				limit = r.limit
			}
			q, err := readBody[Q](http.MaxBytesReader(w, request.Body, limit))
			if err != nil {
				a.fail(w, request, err)
				return
			}
			working(request.Context())
			result, err := do(request, q)
			if err != nil {
				a.fail(w, request, err)
				return
			}
			a.answer(w, request, http.StatusOK, result)
		}
	}
	return r
}

func (r route) with(query ...parameter) route { r.query = query; return r }
func (r route) upTo(bytes int64) route        { r.limit = bytes; return r }

// readBody reads the body to its end, so that a hang-up of the client is noticed from then on.
func readBody[Q any](body io.Reader) (q Q, err error) {
	if _, ignored := any(q).(nothing); ignored {
		_, err = io.Copy(io.Discard, body)
	} else {
		decoder := json.NewDecoder(body)
		decoder.DisallowUnknownFields()
		if err = decoder.Decode(&q); err == nil {
			if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
				err = errors.New("there is more than one JSON object")
			}
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return q, fmt.Errorf("read request: it has more than %d bytes: %w", long.Limit, err)
	case errors.Is(err, io.EOF):
		err = errors.New("it has no body")
	}
	if err != nil {
		return q, wrong{fmt.Errorf("read request: %w%s", err, example(q))}
	}
	return q, nil
}

// example shows what to send instead.
func example(q any) string {
	if e, ok := q.(interface{ example() string }); ok {
		return ": send " + e.example()
	}
	return ""
}

// wrongf is a mistake in the body q.
func wrongf(q any, format string, args ...any) error {
	return wrong{fmt.Errorf("read request: "+format+example(q), args...)}
}

// readQuery returns the parameters of a request, of which there are only the known ones.
func readQuery(r *http.Request, known ...parameter) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong{fmt.Errorf("read request: %w", err)}
	}
	var names []string
	for _, p := range known {
		names = append(names, p.name)
	}
	for name := range query {
		if !slices.Contains(names, name) {
			return nil, wrong{fmt.Errorf("read request: unknown parameter %q: there are %s", name, strings.Join(names, ", "))}
		}
	}
	return query, nil
}

// readTime reads a Go duration above 0; empty: 0.
func readTime(key, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	span, err := time.ParseDuration(text)
	if err == nil && span <= 0 {
		err = errors.New("it is not above 0")
	}
	if err != nil {
		return 0, wrong{fmt.Errorf("read request: %s %q: %w: write a duration such as 10m or 90s", key, text, err)}
	}
	return span, nil
}

func (a *api) handler() http.Handler {
	mux, routes := http.NewServeMux(), a.routes()
	for _, r := range routes {
		if r.handle == nil {
			r.handle = r.answers(a, r)
		}
		mux.HandleFunc(r.method+" "+r.path, r.handle)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		code, allowed := http.StatusNotFound, methods(routes, r.URL.Path)
		if allowed != "" {
			code = http.StatusMethodNotAllowed
			w.Header().Set("Allow", allowed)
		}
		a.answer(w, r, code, failure{fmt.Sprintf("no %s %s here: %s", r.Method, r.URL.Path, endpoints(routes))})
	})
	return mux
}

// methods are those of a path; empty: there is no such path.
func methods(routes []route, path string) string {
	var list []string
	for _, r := range routes {
		if matches(r.path, path) {
			list = append(list, r.method)
			if r.method == http.MethodGet {
				list = append(list, http.MethodHead)
			}
		}
	}
	return strings.Join(list, ", ")
}

func matches(pattern, path string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	for n := range want {
		if len(want) != len(have) || want[n] != have[n] && (have[n] == "" || !strings.HasPrefix(want[n], "{")) {
			return false
		}
	}
	return true
}

// endpoints is what every wrong request is told.
func endpoints(routes []route) string {
	var list []string
	for _, r := range routes {
		path := strings.NewReplacer("{", "", "}", "").Replace(r.path)
		if fixed, names, found := strings.Cut(r.path, "{"); found {
			path = fixed + strings.ToUpper(strings.NewReplacer("{", "", "}", "").Replace(names))
		}
		list = append(list, r.method+" "+path)
	}
	return "there are " + strings.Join(list, ", ")
}

// fail answers with an error.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusUnprocessableEntity
	switch {
	case errors.As(err, new(wrong)):
		code = http.StatusBadRequest
	case errors.As(err, new(*http.MaxBytesError)):
		code = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrUnknown):
		code = http.StatusNotFound
	case errors.As(err, new(starting)), errors.As(err, new(busy)):
		code = http.StatusServiceUnavailable
	}
	a.answer(w, r, code, failure{err.Error()})
}

// answer writes v as JSON.
func (a *api) answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written as JSON"}`)
	}
	a.write(w, r, code, append(body, '\n'))
}

// write writes a JSON body. A client that takes nothing for a while is cut off; that, and one that went away, is nobody's
// concern, so that the error of the write is dropped.
func (a *api) write(w http.ResponseWriter, r *http.Request, code int, body []byte) {
	const piece = 64 << 10
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	for c := http.NewResponseController(w); len(body) > 0; {
		n := min(piece, len(body))
		answering(r.Context())
		c.SetWriteDeadline(time.Now().Add(a.lim.write))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		body = body[n:]
	}
}

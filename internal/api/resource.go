package api

import (
	"context"
	"errors"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// resource is a sort of object that people make, change and remove one by one, and how its five operations come about. Spec
// is what a person writes, In what the service takes, View what it gives, and Body what an answer shows.
type resource[Spec, In, View, Body any] struct {
	api     *API
	path    string // of one of them, before its id
	find    func(ctx context.Context, id string) (View, error)
	check   func(ctx context.Context, id string, in In) (monitor.Faults, error) // id: of the one that is there, or empty
	create  func(ctx context.Context, in In) (View, error)
	replace func(ctx context.Context, id string, revision int64, in In) (View, error) // revision 0: whatever is there
	remove  func(ctx context.Context, id string, revision int64) error

	input    func(*Spec, *[]Fault) In // adds what is wrong with texts that are read here
	body     func(*View) Body
	spec     func(*Body) Spec // what a person would have written to have it as it is
	identity func(*Body) (id string, revision int64)
}

// itemOut is an answer with one object.
type itemOut[Body any] struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Body
}

// read returns what was written, or a problem with all that is wrong with it: its shape, and what the service says of the part
// that could be read.
func (r *resource[Spec, In, View, Body]) read(ctx context.Context, id string, d *decoded[Spec]) (In, error) {
	in := r.input(&d.Value, &d.Faults)
	if len(d.Faults) == 0 {
		return in, nil
	}
	more, err := r.check(ctx, id, in)
	if err != nil {
		return in, err
	}
	d.also(faultsIn("body", more))
	return in, invalid(d.Faults)
}

// answer is the answer with what the service gave, when there was no error.
func (r *resource[Spec, In, View, Body]) answer(v *View, err error) (*itemOut[Body], error) {
	if err != nil {
		return nil, err
	}
	out := &itemOut[Body]{Body: r.body(v)}
	_, revision := r.identity(&out.Body)
	out.ETag = etag(revision)
	return out, nil
}

func (r *resource[Spec, In, View, Body]) get(ctx context.Context, in *ByID) (*itemOut[Body], error) {
	v, err := r.find(ctx, in.ID)
	return r.answer(&v, err)
}

func (r *resource[Spec, In, View, Body]) post(ctx context.Context, _ *anything) (*itemOut[Body], error) {
	d, err := decode[Spec](ctx, r.api)
	if err != nil {
		return nil, err
	}
	input, err := r.read(ctx, "", &d)
	if err != nil {
		return nil, err
	}
	v, err := r.create(ctx, input)
	out, err := r.answer(&v, err)
	if err != nil {
		return nil, err
	}
	id, _ := r.identity(&out.Body)
	out.Location = prefix + r.path + id
	return out, nil
}

func (r *resource[Spec, In, View, Body]) put(ctx context.Context, in *changing) (*itemOut[Body], error) {
	revision, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	if _, err := r.find(ctx, in.ID); err != nil {
		return nil, err // 404 comes before 422
	}
	d, err := decode[Spec](ctx, r.api)
	if err != nil {
		return nil, err
	}
	input, err := r.read(ctx, in.ID, &d)
	if err != nil {
		return nil, err
	}
	v, err := r.replace(ctx, in.ID, revision, input)
	return r.answer(&v, err)
}

// patchTries is how often a patch without If-Match is applied anew when somebody else was faster.
const patchTries = 5

func (r *resource[Spec, In, View, Body]) patch(ctx context.Context, in *changing) (*itemOut[Body], error) {
	revision, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		v, err := r.find(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		there := r.body(&v)
		_, newest := r.identity(&there)
		if revision != 0 && revision != newest {
			return nil, monitor.ErrStale
		}
		d, err := patched(ctx, r.api, r.spec(&there))
		if err != nil {
			return nil, err
		}
		input, err := r.read(ctx, in.ID, &d)
		if err != nil {
			return nil, err
		}
		v, err = r.replace(ctx, in.ID, newest, input)
		if errors.Is(err, monitor.ErrStale) && revision == 0 && try < patchTries {
			continue
		}
		return r.answer(&v, err)
	}
}

func (r *resource[Spec, In, View, Body]) delete(ctx context.Context, in *changing) (*nothing, error) {
	revision, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, r.remove(ctx, in.ID, revision)
}

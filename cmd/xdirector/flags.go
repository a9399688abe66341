package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xdirector/xdirector/pkg/config"
)

// flagValues says in a user's words what a flag takes, by the type of pflag.
var flagValues = map[string]string{
	"bool":      "write true or false, or the flag alone",
	"duration":  "write a time such as 30s or 10m",
	"int":       "write a whole number",
	"uint32":    "write a whole number of 0 to 4294967295",
	"uintSlice": "write a whole number, or several with commas",
}

// flagError says what is wrong with a flag, instead of what Go's parsers say of it.
func flagError(c *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		if flag := invalid.GetFlag(); flagValues[flag.Value.Type()] != "" {
			err = fmt.Errorf("%s: --%s %q: %s", c.Name(), flag.Name, invalid.GetValue(), flagValues[flag.Value.Type()])
		}
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		name := "--" + unknown.GetSpecifiedName()
		err = fmt.Errorf("unknown flag %s%s", name, config.DidYouMean(name, names))
	}
	return usageError{err}
}

package exporter

// Versions of BuildKit's behaviour that clients may ask for with a build, so that it gives what an older BuildKit gave. 0 is the current
// one. They change what outputs of images do where attributes say nothing.
const (
	Compat013 = 10 // BuildKit 0.13 and 0.14
	Compat015 = 20 // 0.15 up to 0.30
	Compat031 = 30 // 0.31 and later
)

// Compats lists them.
func Compats() []int64 { return []int64{Compat013, Compat015, Compat031} }

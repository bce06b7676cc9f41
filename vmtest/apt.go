// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt runs apt's programs with a configuration of its own: own sources, lists and
// cache in one folder, no installed packages. The system's are only read, once,
// for the mirrors.
type apt struct{ dir string }

// mirrors are the places Debian is fetched from.
type mirrors struct{ main, security string }

// fetch downloads a kernel's packages and unpacks them into dir, with a file
// "version". apt checks the archive's signature and the packages' hashes.
func (c *Cache) fetch(p Package, dir string) error {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: kernels are fetched with Debian's apt and dpkg; or give an image's path to -kernel", err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("%w: install debian-archive-keyring, which the packages are checked with", err)
	}
	from, err := systemMirrors()
	if err != nil {
		return err
	}
	a := &apt{dir: filepath.Join(c.dir, "apt", p.Name)}
	defer os.RemoveAll(a.dir) // the lists are bigger than the kernel
	if err := a.configure(p, from); err != nil {
		return err
	}
	if _, err := a.run("", "apt-get", "update", "-qq"); err != nil {
		return err
	}
	names, version, err := a.resolve(p.Package)
	if err != nil {
		return err
	}
	debs, err := os.MkdirTemp(a.dir, "debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	if _, err := a.run(debs, "apt-get", append([]string{"download", "-qq"}, names...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	if len(files) != len(names) {
		return fmt.Errorf("apt-get download gave %d files for %s", len(files), strings.Join(names, " "))
	}
	for _, f := range files {
		if _, err := a.run("", "dpkg", "-x", f, dir); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "version"), []byte(version+"\n"), 0o644)
}

// configure writes the configuration and the sources.
func (a *apt) configure(p Package, from mirrors) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "empty.d"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	var sources bytes.Buffer
	for _, suite := range p.Suites {
		uri := from.main
		if strings.HasSuffix(suite, "-security") {
			if uri = from.security; uri == "" {
				continue // only the main archive is known: its newest kernel will do
			}
		}
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", keyring, uri, suite)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), sources.Bytes(), 0o644); err != nil {
		return err
	}
	conf := strings.ReplaceAll(`Dir::Etc::SourceList "DIR/sources.list";
Dir::Etc::SourceParts "DIR/empty.d";
Dir::Etc::Preferences "DIR/none";
Dir::Etc::PreferencesParts "DIR/empty.d";
Dir::State "DIR";
Dir::State::Lists "DIR/lists";
Dir::State::Status "/dev/null";
Dir::Cache "DIR/cache";
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
Acquire::Languages "none";
Acquire::Retries "3";
`, "DIR", a.dir)
	return os.WriteFile(filepath.Join(a.dir, "apt.conf"), []byte(conf), 0o644)
}

var kernelPart = regexp.MustCompile(`^linux-(image|binary|modules|base)-[0-9]`)

// resolve follows the dependencies of a package to the real ones that hold the
// kernel, and gives the first one's version. The meta package itself isn't fetched.
func (a *apt) resolve(name string) (names []string, version string, err error) {
	seen := map[string]bool{}
	todo := []string{name}
	for len(todo) > 0 {
		name, todo = todo[0], todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		out, err := a.run("", "apt-cache", "show", "--no-all-versions", name)
		if err != nil {
			return nil, "", err
		}
		for line := range strings.Lines(out) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if key == "Version" && version == "" {
				version = value
			}
			if key != "Depends" && key != "Pre-Depends" {
				continue
			}
			for dep := range strings.SplitSeq(value, ",") {
				dep, _, _ = strings.Cut(strings.TrimSpace(dep), " ")
				if kernelPart.MatchString(dep) {
					todo = append(todo, dep)
				}
			}
		}
		if kernelPart.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, "", fmt.Errorf("package %s depends on no kernel image", name)
	}
	return names, version, nil
}

// run runs a program with the room's configuration and returns its standard output.
func (a *apt) run(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// systemMirrors asks the system's apt where Debian and its security archive are.
// SLUICE_VM_MIRROR and SLUICE_VM_SECURITY_MIRROR (addresses) come first.
func systemMirrors() (mirrors, error) {
	m := mirrors{main: os.Getenv("SLUICE_VM_MIRROR"), security: os.Getenv("SLUICE_VM_SECURITY_MIRROR")}
	if m.main != "" {
		return m, nil
	}
	cmd := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 3 || f[0] != "Debian" {
			continue
		}
		switch {
		case f[1] == "Debian" && m.main == "":
			m.main = f[2]
		case f[1] == "Debian-Security" && m.security == "":
			m.security = f[2]
		}
	}
	if m.main == "" {
		return m, errors.New("the system's apt knows no Debian archive: run `apt-get update` if this is Debian, else set SLUICE_VM_MIRROR to a mirror's address")
	}
	return m, nil
}

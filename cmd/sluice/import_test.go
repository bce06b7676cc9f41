// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nginxConf = "stream {\n\tserver {\n\t\tlisten 19585;\n\t\tproxy_pass 192.168.1.85:19537;\n\t}\n}\n"

// TestImport: the file on stdout and what is lost on stderr; --strict lets
// neither be half.
func TestImport(t *testing.T) {
	source := filepath.Join(t.TempDir(), "nginx.conf")
	write := func(text string) {
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(nginxConf)
	for _, args := range [][]string{{"import", source}, {"import", "--strict", source}} {
		code, out, errs := sluice(t, args...)
		if code != 0 || errs != "" || !strings.Contains(out, "listen: 0.0.0.0:19585\n") {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
		if code, said, errs := sluice(t, "check", "-c", file(t, out)); code != 0 || errs != "" {
			t.Errorf("check of it: exit %d, %q, %q", code, said, errs)
		}
	}
	write("user nginx;\n" + nginxConf)
	lost := source + ":1: user nginx: sluice runs as who starts it; User= of the unit says who\n"
	if code, out, errs := sluice(t, "import", source); code != 0 || errs != lost || !strings.Contains(out, "listen:") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	if code, out, errs := sluice(t, "import", "--strict", source); code != 1 || errs != lost || out != "" {
		t.Errorf("strict: exit %d, stdout %q, stderr %q", code, out, errs)
	}
	write("user nginx;\nstream {")
	if code, out, errs := sluice(t, "import", source); code != 1 || out != "" || errs != source+`:2: stream: its "{" is never closed by "}"`+"\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if code, out, errs := sluice(t, "import", missing); code != 1 || out != "" || errs != "sluice: import: open "+missing+": no such file or directory\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

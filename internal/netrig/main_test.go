// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"testing"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

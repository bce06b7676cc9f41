// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

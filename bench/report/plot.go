// SPDX-License-Identifier: Apache-2.0

package report

import (
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgsvg" // so that a plot can be saved as .svg

	"sluice/bench/result"
)

// colorOf is the same for a contender in all plots; it reads well for most colour-blind people too.
func colorOf(name string) color.Color {
	switch name {
	case "direct":
		return color.Gray{150}
	case "nginx":
		return color.RGBA{0, 158, 115, 255}
	case "haproxy":
		return color.RGBA{86, 180, 233, 255}
	case "sluice-offload":
		return color.Black
	case "sluice-splice":
		return color.RGBA{213, 94, 0, 255}
	case "sluice-relay":
		return color.RGBA{230, 159, 0, 255}
	case "sluice-auto":
		return color.RGBA{204, 121, 167, 255}
	default:
		return color.RGBA{0, 114, 178, 255}
	}
}

// errorBars makes a plotter.XYer and YErrorer of the medians and their spread.
type errorBars struct {
	plotter.XYs
	plotter.YErrors
}

// bars plots the main metric, with the least and the greatest sample. It is
// false if there is nothing to plot.
func bars(s *result.Series, path string) (bool, error) {
	p := plot.New()
	p.Title.Text = s.Title
	p.Y.Label.Text = s.Unit
	p.Y.Min = 0
	p.Add(plotter.NewGrid())
	spread := errorBars{}
	var names []string
	for _, name := range Order(s) {
		st := s.Stat(s.Metric, name)
		if st.N == 0 {
			continue
		}
		x := float64(len(names))
		bar, err := plotter.NewBarChart(plotter.Values{st.Median}, vg.Points(36))
		if err != nil {
			return false, err
		}
		bar.XMin, bar.Color = x, colorOf(name)
		bar.LineStyle.Width = 0
		p.Add(bar)
		names = append(names, strings.TrimPrefix(name, "sluice-"))
		spread.XYs = append(spread.XYs, plotter.XY{X: x, Y: st.Median})
		spread.YErrors = append(spread.YErrors, struct{ Low, High float64 }{st.Median - st.Min, st.Max - st.Median})
	}
	if len(names) == 0 {
		return false, nil
	}
	errs, err := plotter.NewYErrorBars(spread)
	if err != nil {
		return false, err
	}
	p.Add(errs)
	p.NominalX(names...)
	p.X.Min, p.X.Max = -.6, float64(len(names))-.4
	p.Y.Min = math.Min(p.Y.Min, 0)
	return true, p.Save(6.5*vg.Inch, 2.8*vg.Inch, path)
}

// growth plots connections per second over the number of backends.
func growth(r *result.Run, path string) (bool, error) {
	p := plot.New()
	p.Title.Text = "Connections per second"
	p.X.Label.Text, p.Y.Label.Text = "backends", "1/s"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, backendTicks{}
	p.Y.Min = 0
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	lines := map[string]plotter.XYs{}
	var names []string
	for _, s := range r.Series {
		text, ok := strings.CutPrefix(s.Name, "connrate-b")
		n, err := strconv.Atoi(text)
		if !ok || err != nil {
			continue
		}
		for _, name := range Order(s) {
			if st := s.Stat(s.Metric, name); st.N > 0 {
				lines[name] = append(lines[name], plotter.XY{X: float64(n), Y: st.Median})
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	for _, name := range names {
		line, points, err := plotter.NewLinePoints(lines[name])
		if err != nil {
			return false, err
		}
		line.Color, points.Color = colorOf(name), colorOf(name)
		line.Width = vg.Points(1.5)
		p.Add(line, points)
		p.Legend.Add(name, line)
	}
	if len(names) == 0 {
		return false, nil
	}
	p.Y.Max *= 1.3 // room for the legend
	return true, p.Save(6.5*vg.Inch, 3.5*vg.Inch, path)
}

type backendTicks struct{}

// Ticks are the numbers of backends that are measured.
func (backendTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for _, n := range []int{2, 16, 256, 1024} {
		if v := float64(n); v >= low && v <= high {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.Itoa(n)})
		}
	}
	return ticks
}

"""The dashboard: the charts, and the state of the run, in what room there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Grid
from textual.geometry import Size
from textual.widget import Widget

from screens.arrangement import Arrangement, arrange
from screens.base import WorkbenchScreen
from screens.chart_kinds import CHARTS, WARM_UP, WARM_UP_CHARTS, layout
from screens.choose import ChooseDialog
from screens.dialogs import TextDialog
from screens.errands import restart
from screens.keys import bindings
from screens.line_search import search_rows
from screens.panels import group_rows, machine_rows, parameter_rows, value_rows
from screens.states import failed_lines, loading_lines, pane_state
from screens.widgets.chart import ChartView, View
from screens.widgets.framed import Framed
from screens.widgets.panes import Panel, StatePane, ThreeLines
from sessions.commands import QuerySeries
from sessions.errors import WorkbenchError
from sessions.records import SeriesData

WINDOWS = (0, 1000, 200, 50)
AROUND = 50
"""Steps on either side of where ``:goto`` goes."""
FETCH_FROM = 1500
"""With more steps than this, a snapshot may have left points out."""


class DashboardScreen(WorkbenchScreen):
    """Charts first."""

    MODE = "dashboard"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("dashboard")]
    DEFAULT_CSS = """
    DashboardScreen #charts { height: 1fr; grid-gutter: 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.zoomed = ""
        self.page = 0
        self.aside = False
        self._arranged: Arrangement | None = None
        self._warm_up = False
        self._line = -1

    def compose_body(self) -> Iterable[Widget]:
        marks = self.workbench.marks
        charts = [ChartView(kind, self.live, self.view, marks) for kind in CHARTS]
        first = [ChartView(kind, self.live, self.view, marks) for kind in WARM_UP_CHARTS]
        panels = [
            Panel("parameters", "params", "p edit", parameter_rows, ("values", "changes", "status")),
            Panel("groups", "last groups", "s samples", group_rows, ("heads", "series", "ratings", "status")),
            Panel("value", "value model", "", value_rows, ("last_step", "values")),
            Panel("search", "line search", "", search_rows, ("last_step", "values")),
            Panel("machine", "machine", "", machine_rows, ("status", "last_step", "checkpoints")),
        ]
        cells: list[Widget] = [*charts, *first, *panels]
        for widget in cells:
            if isinstance(widget, Framed):
                widget.ascii = marks == "ascii"
        yield Grid(*cells, id="charts")
        yield ThreeLines(id="three")
        yield StatePane(id="pane")

    # ------------------------------------------------------------------------------------------ drawing

    def refresh_from_live(self, force: bool) -> None:
        if self._line != self.live.version["line"]:
            self._line = self.live.version["line"]
            self.view.fetched = None  # points of the line before
            self.view.changed()
        state = pane_state(self.live)
        pane = self.query_one(StatePane)
        if state == "live" or (state == "failed" and self.aside):
            pane.display = False
            self._show_charts(force)
            return
        pane.heading = "the engine has failed" if state == "failed" else "starting"
        pane.lines = failed_lines(self.live) if state == "failed" else loading_lines(self.live)
        self.query_one("#charts").display = self.query_one("#three").display = False
        pane.display = True
        self._arranged = None
        if isinstance(self.focused, ChartView):
            self.set_focus(None)
        pane.redraw()

    def _show_charts(self, force: bool) -> None:
        body = self.query_one("#body").size
        self._arrange(body or Size(self.size.width, self.size.height - 4))
        for chart in self.query(ChartView):
            if chart.display:
                chart.live = self.live
                chart.update(force)
        for panel in self.query(Panel):
            if panel.display:
                panel.update(self.live, force)
        three = self.query_one(ThreeLines)
        if three.display:
            three.update(self.live)

    def _arrange(self, room: Size) -> None:
        warm_up = self.live.in_warm_up
        if warm_up != self._warm_up:  # the steps of one are not those of the other
            self._warm_up = warm_up
            self.zoomed, self.view.cross, self.view.window = "", None, (0, 0)
            self.view.changed()
        status = self.live.status
        wanted = WARM_UP if warm_up else layout(status.algorithm if status else "")
        plan = arrange(
            room.width, room.height, wanted.importance, wanted.panels, zoomed=self.zoomed, page=self.page
        )  # fmt: skip
        if plan == self._arranged:
            return
        self._arranged = plan
        grid = self.query_one("#charts", Grid)
        for chart in self.query(ChartView):
            chart.display = chart.kind.name in plan.charts
        for panel in self.query(Panel):
            panel.display = panel.id in plan.panels
        self._sort(grid, [name for name in wanted.grid if name in plan.charts], plan.panels)
        grid.styles.grid_size_columns = plan.columns
        grid.styles.grid_size_rows = plan.rows
        grid.display = True
        self.query_one("#three").display = plan.lines
        focused = self.focused
        if not isinstance(focused, ChartView) or not focused.display:
            self._shown()[0].focus()

    def _sort(self, grid: Grid, charts: Sequence[str], panels: Sequence[str]) -> None:
        """Two charts and a pane a row: a grid fills its rows in the order of its children."""
        order: list[str] = []
        for row in range((len(charts) + 1) // 2):
            order += [f"chart-{name}" for name in charts[2 * row : 2 * row + 2]]
            order += panels[row : row + 1]
        places = {name: place for place, name in enumerate(order)}
        grid.sort_children(key=lambda widget: places.get(widget.id or "", len(places)))

    def _shown(self) -> list[ChartView]:
        return [chart for chart in self.query(ChartView) if chart.display]

    def announcement(self) -> str:
        if pane_state(self.live) == "failed":
            return "w shows the pane of the failure" if self.aside else "w shows the charts"
        if self.replaying is not None:
            return self._announced_in_replay()
        if self.live.connection == "ended" and self.workbench.restart_session is not None:
            return self._all_made() or "the session has ended: R continues it from its last checkpoint"
        plan = self._arranged
        first, last = self.view.window
        if last:
            return f"the charts stand still at steps {first} to {last}: esc shows all steps"
        if plan is not None and plan.hidden:
            return f"{plan.hidden_text}: widen or press w"
        if self.size.width >= 140 and plan is not None and not self.zoomed:
            marks = ": on a chart marks a change, a rewind, a fork or an alarm"
            return f"{marks}; hjkl between charts, < > the crosshair, x other metrics"
        return ""

    def _all_made(self) -> str:
        """What goes on with a session that has made the steps it was to make: an engine would load, and end at once."""
        status, last = self.live.status, self.live.last_step
        if status is None or last is None or not 0 < status.steps <= last.step:
            return ""
        again = f"workbench run --name {self.live.name} --steps {last.step + status.steps}"
        return f"all {status.steps} steps are made: `{again}` goes on"

    def _announced_in_replay(self) -> str:
        link, plan = self.replaying, self._arranged
        if link is not None and link.step == link.last and self.workbench.restart_session is not None:
            return "the end of the record: R continues the session from its last checkpoint"
        return f"{plan.hidden_text}: widen or press w" if plan is not None and plan.hidden else ""

    def topic(self) -> list[str]:
        chart = self.focused
        return chart.explain() if isinstance(chart, ChartView) else []

    def text_to_copy(self) -> str:
        return "\n".join(f"{name}\t{series.last}" for name, series in sorted(self.live.series.items()))

    # --------------------------------------------------------------------------------- keys on the charts

    def on_chart_view_key(self, message: ChartView.Key) -> None:
        message.stop()
        chart = message.chart
        match message.what:
            case "zoom":
                self.zoomed = "" if self.zoomed else chart.kind.name
            case "crosshair":
                self._move_cross(chart, int(message.by))
            case "window":
                last = self.view.window[0] if not self.view.window[1] else 0
                now = WINDOWS.index(last) if last in WINDOWS else 0
                self._window((WINDOWS[(now + 1) % len(WINDOWS)], 0))
            case "values":
                self.app.push_screen(TextDialog(", ".join(chart.metrics), chart.table()))
            case "choose":
                self._choose(chart)
            case "go":
                self._go(chart, str(message.by))
        self.refresh_now()

    def _move_cross(self, chart: ChartView, by: int) -> None:
        first, last = chart.steps()
        column = max(1, round((last - first) / max(1, chart.size.width - 8)))
        at = self.view.cross
        self.view.cross = last if at is None else min(max(at + by * column, first), last)
        self.view.changed()

    def _window(self, window: tuple[int, int]) -> None:
        self.view.window, self.view.fetched = window, None
        self.view.changed()
        first, last = self.view.steps(self.live, self.live.in_warm_up)
        self.say(f"steps {first} to {last}" if window != (0, 0) else "all steps")
        newest = self.live.newest_step()
        if window != (0, 0) and newest > FETCH_FROM and self.replaying is None:  # which has the newest points whole
            self.run_worker(self._fetch(first, last), group="fetch", exclusive=True, exit_on_error=False)

    async def _fetch(self, first: int, last: int) -> None:
        """The points of a window, which a snapshot has only in part."""
        names = sorted({name for chart in self.query(ChartView) if not chart.of_warm_up for name in chart.metrics})
        try:
            series = await self.query_engine(QuerySeries(names=names, first=first, last=last), list[SeriesData])
        except WorkbenchError as error:
            self.say(f"older points cannot be had: {error}", "warning")
            return
        self.view.fetched = {data.name: data for data in series}
        self.view.changed()
        self.refresh_now()

    def _choose(self, chart: ChartView) -> None:
        def chosen(names: list[str] | None) -> None:
            if names:
                chart.metrics = tuple(names)
                self.refresh_now()

        self.app.push_screen(ChooseDialog(sorted(self.live.series), list(chart.metrics)), chosen)

    def _go(self, chart: ChartView, where: str) -> None:
        """Focus the chart in a direction."""
        here = chart.region.center
        ahead: Callable[[float, float], bool] = {
            "left": lambda x, y: x < -1,
            "right": lambda x, y: x > 1,
            "up": lambda x, y: y < -1,
            "down": lambda x, y: y > 1,
        }[where]
        found = []
        for other in self._shown():
            x, y = other.region.center[0] - here[0], other.region.center[1] - here[1]
            if other is not chart and ahead(x, y):
                across = abs(y) if where in ("left", "right") else abs(x)
                found.append((across, abs(x) + abs(y), other))
        if found:
            min(found, key=lambda item: item[:2])[2].focus()

    def goto(self, step: int) -> None:
        """The charts around a step, with the crosshair on it."""
        newest = self.live.newest_step(self.live.in_warm_up)
        if not 0 <= step <= newest:
            self.say(f"no step {step}: the newest is {newest}", "error")
            return
        self.view.cross = step
        self._window((max(0, step - AROUND), min(max(newest, 1), step + AROUND)))
        self.refresh_now()

    # ------------------------------------------------------------------------------------------- actions

    def action_arrange(self) -> None:
        if pane_state(self.live) == "failed":
            self.aside = not self.aside
        elif self._arranged is not None and self._arranged.pages > 1:
            self.page = (self.page + 1) % self._arranged.pages
        else:
            self.say("everything is shown")
        self.refresh_now()

    def action_back(self) -> None:
        """esc: out of the zoom, then of the crosshair, then of the window."""
        if self.zoomed:
            self.zoomed = ""
        elif self.view.cross is not None:
            self.view.cross = None
            self.view.changed()
        elif self.view.window != (0, 0):
            self._window((0, 0))
        self.refresh_now()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "restart":
            without_engine = self.live.connection in ("ended", "replay")
            return without_engine and self.workbench.restart_session is not None
        return super().check_action(action, parameters)

    def action_restart(self) -> None:
        """Of a replay, the session itself, from its last checkpoint."""
        if self.replaying is not None:
            if self.replaying.replay.folder.running():
                self.say(self.replaying.refusal(), "warning")
                return
            self.workbench.attach(self.replaying.replay.folder)
        elif self._all_made():
            self.say(self._all_made(), "warning")
            return
        restart(self)

    def action_show_log(self) -> None:
        folder = self.workbench.folder
        if folder is not None:
            self.app.push_screen(TextDialog("engine.log, the end", folder.log_tail(500) or ["(the log is empty)"]))

//! Draws a snapshot. Pure: the same snapshot, controls and size give the same screen.

use forecastle_resources::SizeClass;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph};

use super::bar::{FREE, RESERVED, USED, bar};
use super::cells::{cell, class_heading, cpu_text, memory_text, queue, seconds, share, table, tail, used_of};
use super::controls::{Controls, Focus, state_name};
use super::snapshot::{RunRow, Snapshot, WorkerRow};
use crate::fleet::State;
use crate::output::{count, printable};
use crate::quantities::{brief_bytes, brief_cores, span};

/// From this width on, workers are shown with fleet, host and version.
const WIDE: u16 = 120;

/// All that is drawn.
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) controls: &'a Controls,
    /// Where the frontend is.
    pub(super) url: &'a str,
    /// Why the snapshot is old, if it is.
    pub(super) trouble: Option<&'a str>,
    pub(super) colour: bool,
}

/// Lines of each table, its heading included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Heights {
    workers: u16,
    shares: u16,
    queues: u16,
    runs: u16,
}

/// Lines above the tables and below them.
const HEADER: u16 = 2;
const FOOTER: u16 = 1;

impl Heights {
    /// The tables in what a screen of `height` lines has for them. Runs get what the others leave, and at least a third.
    fn new(height: u16, workers: usize, shares: usize, queues: usize) -> Self {
        let all = height.saturating_sub(HEADER + FOOTER);
        let lines = |rows: usize, most: u16| u16::try_from(rows).unwrap_or(u16::MAX).min(most).saturating_add(1);
        let rest = all - all / 3;
        let workers = lines(workers.max(1), (rest / 2).max(1)).min(rest);
        let rest = rest - workers;
        // A heading without a row under it says nothing.
        let some = |rows: usize, rest: u16| if rows == 0 || rest < 2 { 0 } else { lines(rows, rest - 1) };
        let queues = some(queues, rest);
        let shares = some(shares, rest - queues);
        Self { workers, shares, queues, runs: all - workers - queues - shares }
    }
}

impl View<'_> {
    /// The rows of the focused table, and how many of them fit on a screen of this height.
    pub(super) fn focused(&self, height: u16) -> (usize, usize) {
        let workers = self.controls.workers(self.snapshot).len();
        let heights = Heights::new(height, workers, self.snapshot.shares.len(), self.snapshot.queues.len());
        let (rows, lines) = match self.controls.focus {
            Focus::Runs => (self.controls.runs(self.snapshot).len(), heights.runs),
            Focus::Workers => (workers, heights.workers),
        };
        (rows, usize::from(lines.saturating_sub(1)))
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let snapshot = self.snapshot;
        let (workers, runs) = (self.controls.workers(snapshot), self.controls.runs(snapshot));
        let heights = Heights::new(frame.area().height, workers.len(), snapshot.shares.len(), snapshot.queues.len());
        let lengths =
            [HEADER, heights.workers, heights.shares, heights.queues, heights.runs, FOOTER].map(Constraint::Length);
        let [header, workers_area, shares, queues, runs_area, footer] = Layout::vertical(lengths).areas(frame.area());
        frame.render_widget(Paragraph::new(self.header(header.width)), header);
        self.draw_workers(frame, workers_area, &workers);
        self.draw_shares(frame, shares);
        self.draw_queues(frame, queues);
        self.draw_runs(frame, runs_area, &runs);
        frame.render_widget(Paragraph::new(self.footer()), footer);
    }

    fn tone(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn header(&self, width: u16) -> Text<'static> {
        let snapshot = self.snapshot;
        let claiming = snapshot.workers.iter().filter(|worker| worker.state == State::Live).count();
        let others = match snapshot.workers.len() - claiming {
            0 => String::new(),
            others => format!(" and {others} not taking work"),
        };
        let first = format!(
            "forecastle top  {}, {}{others}  {}  {:.1} claims/s",
            printable(self.url),
            count(claiming as u64, "worker"),
            count(snapshot.runs.len() as u64, "run"),
            snapshot.claims_per_second,
        );
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut first = vec![Span::styled(first, bold)];
        if self.controls.paused {
            first.push(Span::styled("  PAUSED", bold.patch(self.tone(Color::Yellow))));
        }
        if let Some(trouble) = self.trouble {
            let second = Line::styled(format!("old: {}", printable(trouble)), bold.patch(self.tone(Color::Red)));
            return Text::from(vec![Line::from(first), second]);
        }
        let (cpu, memory) = (snapshot.total.cpu, snapshot.total.memory);
        let length = usize::from(width.saturating_sub(72) / 2).clamp(4, 24);
        let mut second = vec!["CPU ".into()];
        second.extend(bar(cpu, length, self.colour));
        second.push(format!(" {}  MEM ", cpu_text(cpu)).into());
        second.extend(bar(memory, length, self.colour));
        second.push(format!(" {}   {USED} used {RESERVED} reserved {FREE} free", memory_text(memory)).into());
        Text::from(vec![Line::from(first), Line::from(second)])
    }

    fn footer(&self) -> Line<'static> {
        let controls = self.controls;
        if controls.editing {
            return Line::from(format!("filter: {}_   Enter keeps it, Esc clears it", printable(&controls.filter)));
        }
        let filter = if controls.filter.is_empty() {
            "filter".to_owned()
        } else {
            format!("filter: {} (Esc clears)", printable(&controls.filter))
        };
        let keys = [
            ("q", "quit".to_owned()),
            ("s", format!("sort: {}", controls.order.as_str())),
            ("/", filter),
            ("p", if controls.paused { "go on" } else { "pause" }.to_owned()),
            ("+-", format!("every {}", span(u64::try_from(controls.interval.as_millis()).unwrap_or(u64::MAX)))),
            ("Tab", if controls.focus == Focus::Runs { "runs" } else { "workers" }.to_owned()),
            ("↑↓", "scroll".to_owned()),
        ];
        let key = |(key, what): (&'static str, String)| {
            [Span::styled(key, Style::new().add_modifier(Modifier::REVERSED)), format!(" {what}  ").into()]
        };
        Line::from(keys.into_iter().flat_map(key).collect::<Vec<_>>())
    }

    /// The part of a table that is scrolled to.
    fn window<'a, T>(&self, rows: &'a [&'a T], focus: Focus, area: Rect) -> &'a [&'a T] {
        let height = usize::from(area.height.saturating_sub(1));
        let offset = self.controls.offset(focus, rows.len(), height);
        &rows[offset..rows.len().min(offset + height)]
    }

    fn draw_workers(&self, frame: &mut Frame<'_>, area: Rect, workers: &[&WorkerRow]) {
        let wide = area.width >= WIDE;
        let spare = area.width.saturating_sub(if wide { 100 } else { 60 });
        let length = spare / 2;
        let length = length.clamp(4, 30);
        let mut columns = vec![("WORKER", Constraint::Fill(1), false)];
        if wide {
            columns.extend([
                ("FLEET", Constraint::Length(12), false),
                ("HOST", Constraint::Length(14), false),
                ("VERSION", Constraint::Length(11), false),
            ]);
        }
        columns.extend([
            ("STATE", Constraint::Length(8), false),
            ("CPU", Constraint::Length(length), false),
            ("", Constraint::Length(11), false),
            ("MEMORY", Constraint::Length(length), false),
            ("", Constraint::Length(13), false),
            ("RUNS", Constraint::Length(4), true),
            ("HEARD", Constraint::Length(5), true),
        ]);
        let row = |worker: &&WorkerRow| {
            let tone = match worker.state {
                State::Live => Color::Green,
                State::Draining | State::Leaving => Color::Yellow,
                State::Silent => Color::Red,
            };
            let mut cells = vec![cell(&worker.name, false)];
            if wide {
                cells.extend([&worker.fleet, &worker.host, &worker.version].map(|text| cell(text, false)));
            }
            let gauge = |gauge| Cell::from(Line::from(bar(gauge, usize::from(length), self.colour)));
            cells.extend([
                cell(state_name(worker.state), false).style(self.tone(tone)),
                gauge(worker.gauges.cpu),
                cell(cpu_text(worker.gauges.cpu), false),
                gauge(worker.gauges.memory),
                cell(memory_text(worker.gauges.memory), false),
                cell(worker.runs.to_string(), true),
                cell(seconds(worker.heard_ms), true),
            ]);
            cells
        };
        let rows = self.window(workers, Focus::Workers, area).iter().map(row).collect();
        table(frame, area, &columns, rows, self.controls.focus == Focus::Workers);
        if workers.is_empty() && area.height > 1 {
            // Over the whole width: a column would cut it.
            let none = if self.snapshot.workers.is_empty() { "no worker has reported" } else { "no worker matches" };
            frame.render_widget(Line::from(none), Rect { y: area.y + 1, height: 1, ..area });
        }
    }

    fn draw_shares(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = [
            ("SHARES", Constraint::Length(10), false),
            ("HELD", Constraint::Length(16), false),
            ("GUARANTEED", Constraint::Length(16), false),
            ("AT MOST", Constraint::Length(16), false),
        ];
        table(frame, area, &columns, self.snapshot.shares.iter().map(share).collect(), false);
    }

    fn draw_queues(&self, frame: &mut Frame<'_>, area: Rect) {
        let number = |name, width| (name, Constraint::Length(width), true);
        let mut columns = vec![
            ("QUEUES OF", Constraint::Fill(1), false),
            number("READY", 6),
            number("NO WORKER", 9),
            number("BACKOFF", 7),
        ];
        columns.extend(SizeClass::ALL.map(|class| number(class_heading(class), 4)));
        columns.push(number("CLAIMS/S", 8));
        table(frame, area, &columns, self.snapshot.queues.iter().map(queue).collect(), false);
    }

    fn draw_runs(&self, frame: &mut Frame<'_>, area: Rect, runs: &[&RunRow]) {
        let columns = [
            ("AGE", Constraint::Length(11), false),
            ("TYPE", Constraint::Length(10), false),
            ("WORKER", Constraint::Length(10), false),
            ("PRIORITY", Constraint::Length(8), false),
            ("CPU", Constraint::Length(9), true),
            ("MEMORY", Constraint::Length(10), true),
            ("WASTE", Constraint::Length(5), true),
            ("SHARD", Constraint::Fill(1), false),
        ];
        let taken = 11 + 10 + 10 + 8 + 9 + 10 + 5 + 7;
        let room = usize::from(area.width.saturating_sub(taken));
        let row = |run: &&RunRow| {
            let waste = run.waste().map_or_else(|| "-".to_owned(), |waste| format!("{:.0} %", waste * 100.0));
            let tone = if run.waste().is_some_and(|waste| waste >= 0.2) { Color::Yellow } else { Color::Reset };
            let shard = if run.shard.is_empty() { "another tenant's".to_owned() } else { tail(&run.shard, room) };
            vec![
                cell(span(run.age_ms), false),
                cell(&run.request_type, false),
                cell(&run.worker, false),
                cell(&run.priority, false),
                cell(used_of(run, run.gauges.cpu, brief_cores), true),
                cell(used_of(run, run.gauges.memory, brief_bytes), true),
                cell(waste, true).style(self.tone(tone)),
                cell(shard, false),
            ]
        };
        let rows = self.window(runs, Focus::Runs, area).iter().map(row).collect();
        table(frame, area, &columns, rows, self.controls.focus == Focus::Runs);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::controls::Order;
    use super::super::snapshot::sample;
    use super::*;

    fn controls() -> Controls {
        Controls::new(Duration::from_secs(1), Order::Age, String::new())
    }

    /// The screen as lines, without the blanks at their ends.
    fn drawn(view: &View<'_>, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn view<'a>(snapshot: &'a Snapshot, controls: &'a Controls) -> View<'a> {
        View { snapshot, controls, url: "http://127.0.0.1:7070/", trouble: None, colour: false }
    }

    #[test]
    fn eighty_columns_and_24_lines_show_everything() {
        let (snapshot, controls) = (Snapshot::of(&sample::fleet()), controls());
        let screen = drawn(&view(&snapshot, &controls), 80, 24);
        let expected = [
            "forecastle top  http://127.0.0.1:7070/, 2 workers  4 runs  12.2 claims/s",
            "CPU █▒·· 1.48/3.6/8  MEM █··· 1.2G/5.6G/16G   █ used ▒ reserved · free",
            "WORKER       STATE    CPU                    MEMORY                   RUNS HEARD",
            "alpha        live     ███▒▒▒▒▒·· 1.08/3/4    █▒▒▒▒▒···· 1.1G/5G/8G       2  0.4s",
            "beta         live     █▒········ 0.4/0.6/4   █········· 100M/576M/8G     2  0.4s",
            "SHARES     HELD             GUARANTEED       AT MOST",
            "urgent     0 / 0            2 / 2G           all / 8G",
            "standard   3.6 / 5.6G       0 / 0            all / all",
            "QUEUES OF              READY NO WORKER BACKOFF TINY    S    M    L   XL CLAIMS/S",
            "default standard          20         0       1    0    4    0    0    2     12.2",
            "default batch            100         7       1    0    0    0    0    0      0.0",
            "AGE         TYPE       WORKER     PRIORITY       CPU     MEMORY WASTE SHARD",
            "40.0 s      archive    beta       standard     -/0.1      -/64M     - …00004.0.4",
            "30.0 s                 beta       standard   0.4/0.5  100M/512M   5 % another te",
            "20.0 s      archive    alpha      standard     0.1/2    256M/4G  48 % …00002.0.2",
            "10.0 s      archive    alpha      standard    0.98/1    900M/1G   2 % …00001.0.1",
        ];
        for (found, expected) in screen.iter().zip(expected) {
            assert_eq!(found, expected, "\n{}", screen.join("\n"));
        }
        assert_eq!(screen[23], "q quit  s sort: age  / filter  p pause  +- every 1.0 s  Tab runs  ↑↓ scroll");
    }

    #[test]
    fn a_wide_screen_shows_whole_shards_and_where_workers_are() {
        let (snapshot, controls) = (Snapshot::of(&sample::fleet()), controls());
        let screen = drawn(&view(&snapshot, &controls), 160, 40).join("\n");
        assert!(screen.contains("01980000-0000-7000-8000-000000000002.0.2"), "{screen}");
        assert!(
            screen.contains("another tenant's") && screen.contains("rack-7") && screen.contains("0.1.0"),
            "{screen}"
        );
    }

    #[test]
    fn a_thousand_workers_and_runs_are_scrolled_through() {
        let mut fleet = sample::fleet();
        fleet.workers = (0..1000)
            .map(|number| sample::worker(&format!("w-{number:04}"), vec![sample::lease(number % 10, 100, 64, 50, 32)]))
            .collect();
        let snapshot = Snapshot::of(&fleet);
        let mut controls = controls();
        for code in [KeyCode::Tab, KeyCode::End] {
            let (rows, page) = view(&snapshot, &controls).focused(24);
            controls.press(KeyEvent::new(code, KeyModifiers::NONE), page, rows);
        }
        let screen = drawn(&view(&snapshot, &controls), 80, 24);
        assert!(screen[2].starts_with("WORKER"), "{screen:?}");
        assert!(screen.iter().any(|line| line.starts_with("w-0999")), "{}", screen.join("\n"));
        assert!(screen.iter().filter(|line| line.contains("archive")).count() >= 6, "runs keep room: {screen:?}");
    }

    #[test]
    fn trouble_a_pause_and_the_filter_are_shown() {
        let snapshot = Snapshot::of(&sample::fleet());
        let mut controls = Controls::new(Duration::from_secs(1), Order::Waste, "beta".to_owned());
        controls.paused = true;
        let view = View { trouble: Some("cannot reach it\x1b[2J"), ..view(&snapshot, &controls) };
        let screen = drawn(&view, 100, 24);
        assert!(screen[0].ends_with("PAUSED"), "{screen:?}");
        assert_eq!(screen[1], "old: cannot reach it\u{fffd}[2J", "nothing steers the terminal");
        assert!(!screen.join("\n").contains("alpha"), "{screen:?}");
        assert!(screen[23].contains("filter: beta (Esc clears)") && screen[23].contains("p go on"), "{screen:?}");
    }

    #[test]
    fn an_empty_fleet_says_so() {
        let (snapshot, controls) = (Snapshot::default(), controls());
        let screen = drawn(&view(&snapshot, &controls), 80, 24).join("\n");
        assert!(screen.contains("no worker has reported") || screen.contains("no worker"), "{screen}");
    }

    #[test]
    fn no_size_is_too_small_to_draw() {
        let (snapshot, controls) = (Snapshot::of(&sample::fleet()), controls());
        for height in 0..30 {
            for width in [0, 1, 5, 20, 79, 80, 119, 120, 300] {
                let view = view(&snapshot, &controls);
                let _ = (drawn(&view, width, height), view.focused(height));
            }
        }
    }
}

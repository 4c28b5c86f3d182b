use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Words of figures: unknown, none, large ones, and any.
fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        0..1_000_000_u64,
        any::<u64>()
    ]
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(i64::MIN),
        Just(i64::MAX),
        0..1_000_000_000_i64,
        any::<i64>()
    ]
}

/// What comes after a point: figures that are replaced, by column.
fn any_change() -> impl Strategy<Value = (i64, Vec<(usize, u64)>)> {
    (any_time(), vec((0..FIGURES, any_word()), 0..FIGURES))
}

fn points_of(changes: &[(i64, Vec<(usize, u64)>)]) -> Vec<Point> {
    let mut point = Point::default();
    let after = |(at, change): &(i64, Vec<(usize, u64)>)| {
        point.at = Timestamp(*at);
        for (column, word) in change {
            point.figures[*column] = Figure::from_word(*word);
        }
        point
    };
    changes.iter().map(after).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the figures and times, and whatever is forgotten in between.
    #[test]
    fn what_is_kept_comes_out_as_it_went_in(
        changes in vec((any_change(), prop::option::of(any_time())), 1..60),
    ) {
        let (changes, forgotten): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let points = points_of(&changes);
        let mut series = Series::new(points[0]);
        let mut kept = VecDeque::from([points[0]]);
        for (point, since) in points[1..].iter().zip(&forgotten[1..]) {
            series.push(*point);
            kept.push_back(*point);
            if let Some(since) = *since {
                series.forget(since);
                while kept.len() > 1 && kept[1].at.0 < since {
                    kept.pop_front();
                }
            }
            prop_assert!(series.points().eq(kept.iter().copied()));
            prop_assert_eq!(series.last(), point);
        }
    }

    /// A point takes no more room than is made for it.
    #[test]
    fn a_point_has_a_largest_size(from in any_change(), to in any_change()) {
        let points = points_of(&[from, to]);
        let mut bytes = VecDeque::new();
        points[1].write(&points[0], &mut bytes);
        prop_assert!(bytes.len() <= MOST_A_POINT);
    }
}

#[test]
fn a_row_has_each_figure_in_its_column_and_null_where_it_is_unknown() {
    let sample = serde_json::from_value(serde_json::json!({
        "mem": { "current": 1, "anon": 2, "file": 3, "swap": 4, "available": 0 },
        "psi": { "some_us_total": 6, "full_us_total": 7 },
        "reclaim": { "refault_total": 8, "pages_total": 10 },
        "faults": { "minor_total": 9 },
    }))
    .unwrap();
    let row = Point::of(&sample, Timestamp(0)).row();
    let told = serde_json::json!(["1970-01-01T00:00:00.000Z", 1, 2, 3, 4, 0, 6, 7, 8, 9, 10]);
    assert_eq!(row, told);
    assert_eq!(row.as_array().unwrap().len(), COLUMNS.len());
    let row = Point::default().row();
    assert!(row.as_array().unwrap()[1..].iter().all(Value::is_null));
}

/// One a second, of a cgroup that faults, grows and stalls all the time.
#[test]
fn five_minutes_of_a_busy_cgroup_take_less_than_eight_kib() {
    let mut series = Series::new(Point::default());
    for second in 1..=400_u64 {
        let mut point = *series.last();
        point.at.0 += 1_000_000 + (second * 7919 % 3000) as i64;
        for (figure, step) in [(0, 65_536), (1, 61_440), (2, 4096), (5, 900), (8, 4000)] {
            let word = point.figures[figure].to_word() + step * (1 + second * 31 % 7);
            point.figures[figure] = Figure::from_word(word);
        }
        series.push(point);
        series.forget(point.at.0 - 300_000_000);
    }
    assert_eq!(series.points().count(), 301);
    let bytes = size_of::<Series>() + size_of::<Rest>() + series.rest.unwrap().bytes.capacity();
    assert!(bytes < 8 << 10, "{bytes} bytes");
}

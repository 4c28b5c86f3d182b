use super::*;

const CALM: Features = Features([1.0, 0.0, 1.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
const HOT: Features = Features([1.0, 0.0, 1.0, 0.5, 1.0, 0.1, 1.0, 0.8, 1.0, 0.0, 0.0, 1.0]);

fn taught(lessons: u32) -> Model {
    let mut model = Model::default();
    for _ in 0..lessons {
        model.learn(&CALM, false);
        model.learn(&HOT, true);
    }
    model
}

#[test]
fn it_tells_what_did_harm_from_what_did_not() {
    let model = taught(50);
    assert!(model.harm(&CALM) < 0.1, "{}", model.harm(&CALM));
    assert!(model.harm(&HOT) > 0.8, "{}", model.harm(&HOT));
    assert!((model.scale(&CALM) - 1.0).abs() < 1e-9);
    assert!(model.scale(&HOT).abs() < 1e-9);
    assert_eq!((model.outcomes, model.bad), (100, 50));
}

#[test]
fn it_never_makes_a_step_larger_and_has_no_say_before_ten_outcomes() {
    assert!((Model::default().scale(&HOT) - 1.0).abs() < 1e-9);
    assert!((taught(4).scale(&HOT) - 1.0).abs() < 1e-9);
    assert!(taught(10).scale(&HOT) < 1.0);
    for lessons in 0..60 {
        let model = taught(lessons);
        for features in [CALM, HOT, Features::default()] {
            assert!((0.0..=1.0).contains(&model.scale(&features)));
        }
    }
}

#[test]
fn harm_that_is_not_repeated_is_forgotten() {
    let mut model = taught(20);
    let then = model.harm(&HOT);
    for _ in 0..200 {
        model.learn(&HOT, false);
    }
    assert!(
        model.harm(&HOT) < 0.2 && then > 0.7,
        "{then} {}",
        model.harm(&HOT)
    );
}

#[test]
fn saved_and_loaded_it_is_the_same() {
    let model = taught(33);
    let text = serde_json::to_string(&model).unwrap();
    let again: Model = serde_json::from_str(&text).unwrap();
    assert_eq!(again, model);
    assert!(again.is_sound());
    assert!((again.harm(&HOT) - model.harm(&HOT)).abs() < 1e-15);
    assert!(Model::default().is_sound());
}

#[test]
fn what_no_learning_leads_to_is_not_sound() {
    let saved = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(taught(5)).unwrap();
        edit(&mut value);
        serde_json::from_value::<Model>(value)
    };
    assert!(saved(&|_| {}).unwrap().is_sound());
    let unsound: [&dyn Fn(&mut serde_json::Value); 6] = [
        &|value| value["weights"][0] = 1e9.into(),
        &|value| value["weights"][3] = (-1e4).into(),
        &|value| value["squares"][2] = 0.into(),
        &|value| value["squares"][2] = (-1).into(),
        &|value| value["squares"][2] = 1e300.into(),
        &|value| value["bad"] = 11.into(),
    ];
    for edit in unsound {
        assert!(!saved(edit).unwrap().is_sound());
    }
    // A weight too many, too few, not a number, or a word that is not known: not even read.
    let unreadable: [&dyn Fn(&mut serde_json::Value); 4] = [
        &|value| value["weights"].as_array_mut().unwrap().push(0.into()),
        &|value| drop(value["weights"].as_array_mut().unwrap().pop()),
        &|value| value["weights"][0] = serde_json::Value::Null,
        &|value| value["more"] = 1.into(),
    ];
    for edit in unreadable {
        assert!(saved(edit).is_err());
    }
}

#[test]
fn an_outcome_is_bad_for_one_of_its_reasons() {
    let fine = Outcome {
        freed: 100 << 20,
        kept: 100 << 20,
        refaults: 256,
        elapsed_us: 10_000_000,
        cpu: Some((1.0, 1.0)),
        ..Outcome::default()
    };
    let cases: [(Outcome, Option<Bad>); 9] = [
        (fine, None),
        // A tenth of what was freed, and no less than a MiB.
        (
            Outcome {
                refaults: 2561,
                ..fine
            },
            Some(Bad::Refaults),
        ),
        (
            Outcome {
                refaults: 2560,
                ..fine
            },
            None,
        ),
        (
            Outcome {
                freed: 1 << 20,
                refaults: 200,
                ..fine
            },
            None,
        ),
        (
            Outcome {
                reverted: true,
                ..fine
            },
            Some(Bad::Reverted),
        ),
        (
            Outcome {
                psi_some_us: 500_001,
                ..fine
            },
            Some(Bad::Stalls),
        ),
        (
            Outcome {
                psi_some_us: 500_000,
                ..fine
            },
            None,
        ),
        // Slower, and something came back: else it simply had less to do.
        (
            Outcome {
                refaults: 300,
                cpu: Some((0.7, 1.0)),
                ..fine
            },
            Some(Bad::Slower),
        ),
        (
            Outcome {
                refaults: 200,
                cpu: Some((0.7, 1.0)),
                ..fine
            },
            None,
        ),
    ];
    for (outcome, want) in cases {
        assert_eq!(judge(&outcome), want, "{outcome:?}");
    }
    // Nothing is known of how long it took: no share of it.
    let unknown = Outcome {
        elapsed_us: 0,
        psi_some_us: 1 << 40,
        ..fine
    };
    assert_eq!(judge(&unknown), None);
    // The least that must not overflow.
    let many = Outcome {
        refaults: u64::MAX,
        ..fine
    };
    assert_eq!(judge(&many), Some(Bad::Refaults));
}

#[test]
fn harm_grows_with_what_came_back_and_is_half_where_a_storm_begins() {
    let gib = 1 << 30;
    assert!(harm(0, gib).abs() < 1e-9);
    let storm = (gib / 10 + FEW) / PAGE;
    assert!((harm(storm, gib) - 0.5).abs() < 0.01);
    assert!((harm(u64::MAX, 0) - 1.0).abs() < 1e-9);
}

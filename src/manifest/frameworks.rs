//! The ids of NIST CSF 2.0, NIST AI RMF 1.0 and the OWASP NHI Top 10 2025 (R43).

use crate::domain::{FrameworkRef, Invalid};

/// CSF 2.0 subcategories, by category: how many there were numbered, and which were left out.
const CSF_2_0: &[(&str, &[u8])] = &[
    ("GV.OC", &[1, 2, 3, 4, 5]),
    ("GV.RM", &[1, 2, 3, 4, 5, 6, 7]),
    ("GV.RR", &[1, 2, 3, 4]),
    ("GV.PO", &[1, 2]),
    ("GV.OV", &[1, 2, 3]),
    ("GV.SC", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ("ID.AM", &[1, 2, 3, 4, 5, 7, 8]),
    ("ID.RA", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ("ID.IM", &[1, 2, 3, 4]),
    ("PR.AA", &[1, 2, 3, 4, 5, 6]),
    ("PR.AT", &[1, 2]),
    ("PR.DS", &[1, 2, 10, 11]),
    ("PR.PS", &[1, 2, 3, 4, 5, 6]),
    ("PR.IR", &[1, 2, 3, 4]),
    ("DE.CM", &[1, 2, 3, 6, 9]),
    ("DE.AE", &[2, 3, 4, 6, 7, 8]),
    ("RS.MA", &[1, 2, 3, 4, 5]),
    ("RS.AN", &[3, 6, 7, 8]),
    ("RS.CO", &[2, 3]),
    ("RS.MI", &[1, 2]),
    ("RC.RP", &[1, 2, 3, 4, 5, 6]),
    ("RC.CO", &[3, 4]),
];

/// AI RMF 1.0 subcategories: how many each category has.
const AI_RMF_1_0: &[(&str, &[u8])] = &[
    ("GOVERN", &[7, 3, 2, 3, 2, 2]),
    ("MAP", &[6, 3, 5, 2, 2]),
    ("MEASURE", &[3, 13, 3, 3]),
    ("MANAGE", &[4, 4, 2, 3]),
];

/// The frameworks, as references name them.
pub const FRAMEWORKS: [&str; 3] = ["CSF_2_0", "AI_RMF_1_0", "OWASP_NHI_2025"];

/// Every id of a framework, in its order; none of one that is not known.
pub fn framework_ids(framework: &str) -> Vec<String> {
    match framework {
        "CSF_2_0" => CSF_2_0
            .iter()
            .flat_map(|(category, numbers)| {
                numbers.iter().map(move |n| format!("{category}-{n:02}"))
            })
            .collect(),
        "AI_RMF_1_0" => AI_RMF_1_0
            .iter()
            .flat_map(|(function, counts)| {
                (1..).zip(counts.iter()).flat_map(move |(category, count)| {
                    (1..=*count).map(move |n| format!("{function} {category}.{n}"))
                })
            })
            .collect(),
        "OWASP_NHI_2025" => (1..=10).map(|n| format!("NHI{n}:2025")).collect(),
        _ => Vec::new(),
    }
}

/// Parses a reference into one of the embedded lists.
pub(super) fn parse(framework: &str, id: &str) -> Result<FrameworkRef, Invalid> {
    let known = match framework {
        "CSF_2_0" => csf(id),
        "AI_RMF_1_0" => ai_rmf(id),
        "OWASP_NHI_2025" => (1..=10).any(|n| id == format!("NHI{n}:2025")),
        _ => {
            return Err(Invalid::new(
                "framework",
                format!("`{framework}` is not a known framework"),
                "use CSF_2_0, AI_RMF_1_0 or OWASP_NHI_2025",
            ));
        }
    };
    if known {
        return Ok(FrameworkRef {
            framework: framework.into(),
            id: id.into(),
        });
    }
    let form = match framework {
        "CSF_2_0" => "ID.RA-07",
        "AI_RMF_1_0" => "GOVERN 1.5",
        _ => "NHI2:2025",
    };
    Err(Invalid::new(
        "ref",
        format!("`{id}` is not in {framework}"),
        format!("use an id such as `{form}`"),
    ))
}

fn csf(id: &str) -> bool {
    let Some((category, number)) = id.rsplit_once('-') else {
        return false;
    };
    CSF_2_0.iter().any(|(known, numbers)| {
        *known == category && numbers.iter().any(|n| number == format!("{n:02}"))
    })
}

fn ai_rmf(id: &str) -> bool {
    let Some((function, place)) = id.split_once(' ') else {
        return false;
    };
    let Some((category, number)) = place.split_once('.') else {
        return false;
    };
    let (Ok(category), Ok(number)) = (category.parse::<usize>(), number.parse::<u8>()) else {
        return false;
    };
    let plain = format!("{category}.{number}") == place;
    AI_RMF_1_0.iter().any(|(known, counts)| {
        *known == function
            && plain
            && category
                .checked_sub(1)
                .and_then(|at| counts.get(at))
                .is_some_and(|count| (1..=*count).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_that_is_listed_is_one_and_no_other() {
        for (framework, count) in FRAMEWORKS.into_iter().zip([106, 72, 10]) {
            let ids = framework_ids(framework);
            assert_eq!(ids.len(), count, "{framework}");
            for id in ids {
                assert!(parse(framework, &id).is_ok(), "{id}");
            }
        }
        assert!(framework_ids("SOC2").is_empty());
    }

    #[test]
    fn r43_unknown_ids_are_refused() {
        for (framework, id) in [
            ("CSF_2_0", "ID.RA-07"),
            ("CSF_2_0", "PR.DS-10"),
            ("AI_RMF_1_0", "MEASURE 2.13"),
            ("OWASP_NHI_2025", "NHI10:2025"),
        ] {
            assert!(parse(framework, id).is_ok(), "{id}");
        }
        for (framework, id) in [
            ("CSF_2_0", "ID.RA-11"),
            ("CSF_2_0", "ID.RA-7"),
            ("CSF_2_0", "ID.AM-06"),
            ("AI_RMF_1_0", "GOVERN 7.1"),
            ("AI_RMF_1_0", "MAP 3.6"),
            ("OWASP_NHI_2025", "NHI-03"),
            ("OWASP_NHI_2025", "NHI11:2025"),
            ("SOC2", "CC6.1"),
        ] {
            assert!(parse(framework, id).is_err(), "{id}");
        }
    }
}

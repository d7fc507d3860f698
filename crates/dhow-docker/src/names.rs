//! Container names for those who give none: `adjective_surname`.

/// Words that describe a ship's weather and character.
const ADJECTIVES: &str = "able agile airy alert amber ample ardent astute azure balmy blithe bold bonny brave breezy bright brisk \
    bronze buoyant calm candid careful cheery chief civil clear clever coastal cobalt composed constant copper coral cordial \
    crisp curious dapper daring deft diligent distant dreamy eager early earnest easy elated elegant emerald equal even fabled \
    fair faithful famed festive fine firm fleet fluent fond frank free fresh friendly gallant gentle genial glad gleaming golden \
    good graceful grand happy hardy hearty helpful honest hopeful humble ideal indigo intent ivory jade jaunty jolly jovial keen \
    kind lasting lean level light lively loyal lucid lucky marine mellow merry mighty mild misty modest moonlit natural neat nimble \
    noble northern open orderly patient peaceful pearly placid plain pleasant plucky polite proud prudent quick quiet rapid ready \
    regal robust rosy rugged sable sage salty scarlet seaborne serene sharp shining silent silver sincere sleek smart smooth snug \
    sober solid spirited spry stable starlit staunch steady sterling stout strong sturdy subtle sunlit sunny sure swift tacit tender \
    thrifty tidy tranquil trim true trusty upbeat valiant vast vivid warm wary western windward wise witty worthy zesty";

/// Surnames of navigators, cartographers, shipwrights and scientists of the sea and of computing.
const SURNAMES: &str = "agassiz albuquerque amundsen babbage baffin barentsz barth bartlett battuta beaufort behaim bellingshausen \
    bering bligh bougainville bowditch brendan brunel cabot cabral cartier carson champlain chichester colossus cook cousteau \
    dampier davis dijkstra drake dumont earle elcano erikson fitzroy flinders franklin frobisher gama gilbert grace halley hamming \
    harrison heyerdahl hipparchus hood hooper hopper hudson humboldt idrisi jourdain kepler khayyam knuth lamport lander laperouse \
    liskov lovelace mackenzie magellan majid malaspina marryat maury mawson mcclintock mercator minsky moitessier muir nansen napier \
    nelson noether nordenskjold ortelius parry peary piccard pigafetta pytheas raleigh reis rennell ritchie rodney ross sabine \
    scoresby scott shackleton shannon slocum sobel soto steele sturgeon tabarly tasman tereshkova tharp thompson torres turing \
    tupaia vancouver verrazzano vespucci weddell wegener wilkes wilkins wirth worsley zheng";

/// A name from random bytes; all eight are used.
pub fn generate(random: [u8; 8]) -> String {
    let pick = |list: &str, n: u32| -> String {
        let words: Vec<&str> = list.split_ascii_whitespace().collect();
        words.get(n as usize % words.len().max(1)).copied().unwrap_or("dhow").to_owned()
    };
    let [a, b, c, d, e, f, g, h] = random;
    let adjective = pick(ADJECTIVES, u32::from_le_bytes([a, b, c, d]));
    let surname = pick(SURNAMES, u32::from_le_bytes([e, f, g, h]));
    format!("{adjective}_{surname}")
}

/// The same with one random digit, for a name that is taken.
pub fn generate_with_digit(random: [u8; 8], digit: u8) -> String {
    format!("{}{}", generate(random), digit % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_container_names_and_words_are_unique() {
        for list in [ADJECTIVES, SURNAMES] {
            let words: Vec<&str> = list.split_ascii_whitespace().collect();
            let set: std::collections::BTreeSet<&str> = words.iter().copied().collect();
            assert_eq!(set.len(), words.len());
            assert!(words.len() > 100, "{}", words.len());
        }
        for seed in 0..=255u8 {
            let name = generate([seed, 7, 0, 0, seed, 1, 0, 0]);
            assert!(name.parse::<dhow_types::ContainerName>().is_ok(), "{name}");
        }
        assert!(generate_with_digit([0; 8], 13).ends_with('3'));
    }
}

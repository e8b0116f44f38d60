// The values that were made last, by their keys: for what is costly to make, wanted again and again, and cheap to lose.
#pragma once

#include <cstddef>

namespace strobe::cuda {

/// Places are chosen by the key's hash() and taken by whoever came last. For one thread.
template <typename Key, typename Value, std::size_t kPlaces>
class Recent {
 public:
  /// The value kept for the key, or else make(), which is kept if it does not throw.
  template <typename Make>
  const Value& get(const Key& key, const Make& make) {
    Place& place = places_[key.hash() % kPlaces];
    if (!place.taken || !(place.key == key)) {
      place.taken = false;
      place.value = make();
      place.key = key;
      place.taken = true;
    }
    return place.value;
  }

 private:
  struct Place {
    bool taken = false;
    Key key{};
    Value value{};
  };
  Place places_[kPlaces];
};

}  // namespace strobe::cuda

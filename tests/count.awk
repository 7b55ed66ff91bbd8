# Counts a JUnit report of ctest and prints "N passed, N failed, N skipped"; fails when a test failed.
#
# A doctest program counts by its test cases, any other test as one. A case that said that it lacks the data folder is
# skipped, not passed. A program that failed without a failed case (it crashed, or was too slow) is one failure.
/^\t<testcase / {
  run = /status="run"/
  broken = /status="fail"/
  lacking = /status="(notrun|disabled)"/
  cases_passed = cases_failed = cases_skipped = counted = 0
}
/<skipped message="Unable to find executable"/ { broken = 1 }
/skipped: NIBBLE_TEST_DATA is not set/ { cases_skipped++ }
/\[doctest\] test cases: / {
  counted = 1
  split($0, column, "|")
  cases_passed += column[2] + 0
  cases_failed += column[3] + 0
}
/^\t<\/testcase>/ {
  if (counted) {
    passed += cases_passed - cases_skipped
    skipped += cases_skipped
    failed += cases_failed
  }
  if (broken && !cases_failed) failed++
  else if (!broken && !counted && run) passed++
  else if (!broken && lacking) skipped++
}
END {
  print ""
  print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"
  exit failed > 0
}

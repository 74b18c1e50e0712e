"""Input of those who mean harm, one file for each way in; all of it is made by the tests."""

"""The grader `math`: the reader of mathematical answers and their exact comparison."""

def area(width, height):
    return float(width) * float(height)
